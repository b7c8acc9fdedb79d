# The page: `hevcq serve` as one Fargate service behind a load balancer that speaks TLS. A load balancer
# and not an API gateway, because open pages ask for news every two seconds and it asks nothing for each
# request. Videos never pass through it: browsers send and fetch them by signed links to the buckets. It
# runs the workers' image, so that one push is one release.

locals {
  log_group = "/${var.name}/web"
  port      = 8790
  callback  = "/sign-in/oidc/back" # hevcq.web.identity.oidc.BACK; a test holds both together
  oidc      = var.cognito ? local.cognito : var.oidc
  environment = merge(
    {
      HEVCQ_BACKEND              = "aws"
      HEVCQ_DATA_DIR             = "/scratch"
      HEVCQ_LOG_STYLE            = "json"
      HEVCQ_LOG_LEVEL            = "info"
      HEVCQ_AWS__REGION          = var.region
      HEVCQ_AWS__INPUT_BUCKET    = var.storage.input_bucket
      HEVCQ_AWS__OUTPUT_BUCKET   = var.storage.output_bucket
      HEVCQ_AWS__TOPIC_ARN       = var.topic_arn
      HEVCQ_AWS__TABLE           = var.ledger_table
      HEVCQ_AWS__PROFILES        = join(",", var.profiles)
      HEVCQ_AWS__TAG_DONE        = tostring(var.tag_inputs)
      HEVCQ_WEB__HOST            = "0.0.0.0"
      HEVCQ_WEB__PORT            = tostring(local.port)
      HEVCQ_WEB__URL             = var.url
      HEVCQ_WEB__AUTH            = "oidc"
      HEVCQ_WEB__OPERATORS       = join(",", var.operators)
      HEVCQ_WEB__OIDC__ISSUER    = local.oidc.issuer
      HEVCQ_WEB__OIDC__CLIENT_ID = local.oidc.client_id
    },
    local.oidc.operator_group != "" ? { HEVCQ_WEB__OIDC__OPERATOR_GROUP = local.oidc.operator_group } : {},
    local.oidc.logout_url != "" ? { HEVCQ_WEB__OIDC__LOGOUT_URL = local.oidc.logout_url } : {},
    var.max_per_day != null ? { HEVCQ_PRICES__MAX_PER_DAY = tostring(var.max_per_day) } : {},
    length(var.trusted_proxies) > 0 ? { HEVCQ_WEB__TRUSTED_PROXIES = join(",", var.trusted_proxies) } : {},
  )
  secrets = merge(
    { HEVCQ_WEB__SESSION_KEY = var.session_key_secret_arn },
    var.oidc_secret_arn != "" ? { HEVCQ_WEB__OIDC__CLIENT_SECRET = var.oidc_secret_arn } : {},
  )
}

# Keys and indexes are those of hevcq.backends.aws.videos.records.INDEXES, its name that of
# hevcq.settings.model.AwsSettings.videos; a test holds both together.
# What expires are reservations of uploads that a program asked for twice.
module "videos" {
  source = "../table"

  region              = var.region
  account_id          = var.account_id
  name                = "${var.name}-videos"
  deletion_protection = var.deletion_protection
  tags                = var.tags

  attributes = { pk = "S", owner_status = "S", video_id = "S", status = "S", due = "S", due_at = "N", slug = "S" }
  indexes = {
    by_owner  = { hash = "owner_status", range = "video_id", with = ["words"] }
    by_status = { hash = "status", range = "video_id", with = ["words"] }
    by_due    = { hash = "due", range = "due_at" }
    by_slug   = { hash = "slug" }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_ecs_task_definition" "this" {
  family                   = "${var.name}-web"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = "512"
  memory                   = "1024"
  task_role_arn            = module.roles.task_role_arn
  execution_role_arn       = module.roles.execution_role_arn
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = upper(var.architecture)
  }

  volume {
    name = "scratch"
  }

  container_definitions = jsonencode([{
    name                   = "web"
    image                  = var.image
    essential              = true
    entryPoint             = ["hevcq"]
    command                = ["serve"]
    user                   = "10001"
    readonlyRootFilesystem = true
    stopTimeout            = 60
    linuxParameters        = { initProcessEnabled = true }
    environment            = [for key in sort(keys(local.environment)) : { name = key, value = local.environment[key] }]
    secrets                = [for key in sort(keys(local.secrets)) : { name = key, valueFrom = local.secrets[key] }]
    mountPoints            = [{ sourceVolume = "scratch", containerPath = "/scratch", readOnly = false }]
    portMappings           = [{ containerPort = local.port, protocol = "tcp" }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "web"
      }
    }
  }])
}

resource "aws_ecs_service" "this" {
  name                              = "${var.name}-web"
  cluster                           = var.cluster
  task_definition                   = aws_ecs_task_definition.this.arn
  desired_count                     = var.tasks
  launch_type                       = "FARGATE"
  platform_version                  = "LATEST"
  propagate_tags                    = "SERVICE"
  enable_ecs_managed_tags           = true
  health_check_grace_period_seconds = 60
  wait_for_steady_state             = false
  tags                              = var.tags

  # A release never leaves the page without a task.
  deployment_maximum_percent         = 200
  deployment_minimum_healthy_percent = 100

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this.arn
    container_name   = "web"
    container_port   = local.port
  }

  network_configuration {
    subnets          = var.network.subnet_ids
    security_groups  = [aws_security_group.task.id]
    assign_public_ip = var.network.assign_public_ip
  }

  depends_on = [aws_lb_listener.https]
}
