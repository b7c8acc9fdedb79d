# Once a day, one task tags the uploads that are finished, and the bucket's rule lets those expire. Its
# role is the only one of a task that may: a worker reads what strangers send, and one that was taken
# over could have every original deleted.

data "aws_partition" "current" {}

locals {
  log_group = "/${var.name}/tagger"
  # Built from its name, for a rule starts the newest revision.
  task_arn = "arn:${data.aws_partition.current.partition}:ecs:${var.region}:${var.account_id}:task-definition/${aws_ecs_task_definition.this.family}"
  environment = {
    HEVCQ_BACKEND            = "aws"
    HEVCQ_DATA_DIR           = "/scratch"
    HEVCQ_LOG_STYLE          = "json"
    HEVCQ_LOG_LEVEL          = "info"
    HEVCQ_AWS__REGION        = var.region
    HEVCQ_AWS__INPUT_BUCKET  = var.storage.input_bucket
    HEVCQ_AWS__OUTPUT_BUCKET = var.storage.output_bucket
    HEVCQ_AWS__TABLE         = var.table.name
    HEVCQ_AWS__PROFILES      = join(",", var.profiles)
    HEVCQ_AWS__TAG_DONE      = "true"
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_security_group" "this" {
  name        = "${var.name}-tagger"
  description = "Tags finished uploads: nothing in, TLS out."
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

resource "aws_ecs_task_definition" "this" {
  family                   = "${var.name}-tagger"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = "256"
  memory                   = "512"
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
    name                   = "tagger"
    image                  = var.image
    essential              = true
    entryPoint             = ["hevcq"]
    command                = ["originals", "expire", "--uploads"]
    user                   = "10001"
    readonlyRootFilesystem = true
    linuxParameters        = { initProcessEnabled = true }
    environment            = [for key in sort(keys(local.environment)) : { name = key, value = local.environment[key] }]
    mountPoints            = [{ sourceVolume = "scratch", containerPath = "/scratch", readOnly = false }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "tagger"
      }
    }
  }])
}

resource "aws_cloudwatch_event_rule" "daily" {
  name                = "${var.name}-tagger"
  description         = "Tags finished uploads."
  schedule_expression = "rate(1 day)"
  tags                = var.tags
}

resource "aws_cloudwatch_event_target" "task" {
  rule     = aws_cloudwatch_event_rule.daily.name
  arn      = var.cluster
  role_arn = aws_iam_role.start.arn

  ecs_target {
    launch_type         = "FARGATE"
    task_definition_arn = local.task_arn

    network_configuration {
      subnets          = var.network.subnet_ids
      security_groups  = [aws_security_group.this.id]
      assign_public_ip = var.network.assign_public_ip
    }
  }
}
