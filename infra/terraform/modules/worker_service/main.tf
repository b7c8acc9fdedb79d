# One profile's workers: logs, task definition and service on Fargate Spot with on-demand beside it.

resource "aws_cloudwatch_log_group" "this" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_security_group" "this" {
  name        = "${var.name}-worker"
  description = "Workers of ${var.profile}: nothing in, TLS out."
  vpc_id      = var.network.vpc_id
  tags        = var.tags
}

resource "aws_vpc_security_group_egress_rule" "tls" {
  security_group_id = aws_security_group.this.id
  description       = "AWS services"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

locals {
  environment = {
    HEVCQ_BACKEND            = "aws"
    HEVCQ_PROFILES           = var.profile
    HEVCQ_DATA_DIR           = "/scratch"
    HEVCQ_WORKERS            = "1"
    HEVCQ_LOG_STYLE          = "json"
    HEVCQ_LOG_LEVEL          = "info"
    HEVCQ_METRICS_EMF        = "true"
    HEVCQ_STOP_GRACE_S       = "60"
    HEVCQ_AWS__REGION        = var.region
    HEVCQ_AWS__INPUT_BUCKET  = var.storage.input_bucket
    HEVCQ_AWS__OUTPUT_BUCKET = var.storage.output_bucket
    HEVCQ_AWS__TOPIC_ARN     = var.topic_arn
    HEVCQ_AWS__TABLE         = var.table.name
    HEVCQ_AWS__PROFILES      = join(",", var.deployed)
  }
}

locals {
  # What Fargate offers: MiB of memory by CPU units, as FARGATE_MEMORY_MIB of
  # src/hevcq/domain/profile.py has it; a test holds both together.
  fargate_memory_mib = {
    "256"   = [512, 1024, 2048]
    "512"   = range(1024, 4096 + 1, 1024)
    "1024"  = range(2048, 8192 + 1, 1024)
    "2048"  = range(4096, 16384 + 1, 1024)
    "4096"  = range(8192, 30720 + 1, 1024)
    "8192"  = range(16384, 61440 + 1, 4096)
    "16384" = range(32768, 122880 + 1, 8192)
  }
  fargate_offer = try(
    "With that CPU it offers ${join(", ", local.fargate_memory_mib[tostring(var.fleet.cpu)])} MiB.",
    "It offers CPU units of 256, 512, 1024, 2048, 4096, 8192 and 16384.",
  )
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.fleet.cpu)
  memory                   = tostring(var.fleet.memory_mib)
  task_role_arn            = module.roles.task_role_arn
  execution_role_arn       = module.roles.execution_role_arn
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = upper(var.fleet.architecture)
  }

  ephemeral_storage {
    size_in_gib = var.fleet.scratch_gib
  }

  volume {
    name = "scratch"
  }

  lifecycle {
    precondition {
      condition     = contains(lookup(local.fargate_memory_mib, tostring(var.fleet.cpu), []), var.fleet.memory_mib)
      error_message = "Profile ${var.profile}: Fargate has no task of fleet.cpu ${var.fleet.cpu} with fleet.memory_mib ${var.fleet.memory_mib}. ${local.fargate_offer}"
    }
  }

  container_definitions = jsonencode([{
    name                   = "worker"
    image                  = var.image
    essential              = true
    user                   = "10001"
    readonlyRootFilesystem = true
    stopTimeout            = 120
    linuxParameters        = { initProcessEnabled = true }
    environment            = [for key in sort(keys(local.environment)) : { name = key, value = local.environment[key] }]
    mountPoints            = [{ sourceVolume = "scratch", containerPath = "/scratch", readOnly = false }]
    healthCheck = {
      command     = ["CMD", "hevcq-health"]
      interval    = 60
      timeout     = 30
      retries     = 5
      startPeriod = 60
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = var.region
        awslogs-stream-prefix = var.profile
      }
    }
  }])
}

resource "aws_ecs_service" "this" {
  name                          = var.name
  cluster                       = var.cluster.arn
  task_definition               = aws_ecs_task_definition.this.arn
  desired_count                 = var.fleet.min_tasks
  platform_version              = "LATEST"
  propagate_tags                = "SERVICE"
  enable_ecs_managed_tags       = true
  availability_zone_rebalancing = "DISABLED" # it stops running tasks, and is on by default
  wait_for_steady_state         = false      # protected tasks may run for hours
  force_new_deployment          = true       # without it, another capacity provider strategy replaces the service
  tags                          = var.tags

  # At most twice the tasks while a release rolls out, so that new ones start beside protected ones.
  deployment_maximum_percent         = 200
  deployment_minimum_healthy_percent = 0

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # The first task is on demand, so that work goes on when Spot has nothing: ECS makes no fall-back.
  capacity_provider_strategy {
    capacity_provider = "FARGATE"
    base              = var.fleet.spot_share < 100 ? 1 : 0
    weight            = 100 - var.fleet.spot_share
  }

  capacity_provider_strategy {
    capacity_provider = "FARGATE_SPOT"
    base              = 0
    weight            = var.fleet.spot_share
  }

  network_configuration {
    subnets          = var.network.subnet_ids
    security_groups  = [aws_security_group.this.id]
    assign_public_ip = var.network.assign_public_ip
  }

  lifecycle {
    ignore_changes = [desired_count]
  }
}
