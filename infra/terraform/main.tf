# The whole farm. Profiles come from the same files that the workers read.

data "aws_region" "current" {}

data "aws_partition" "current" {}

data "aws_caller_identity" "current" {
  count = var.account_id == "" ? 1 : 0
}

data "aws_availability_zones" "available" {
  count = var.network == null && length(var.zones) == 0 ? 1 : 0
  state = "available"
}

locals {
  profiles_dir = var.profiles_dir != "" ? var.profiles_dir : "${path.module}/../../workers"
  known        = { for file in fileset(local.profiles_dir, "*.yaml") : trimsuffix(file, ".yaml") => yamldecode(file("${local.profiles_dir}/${file}")) }
  profiles     = { for name, profile in local.known : name => profile if length(var.profiles) > 0 ? contains(var.profiles, name) : try(profile.fleet.deployed, true) }
  account_id   = var.account_id != "" ? var.account_id : data.aws_caller_identity.current[0].account_id
  region       = data.aws_region.current.name
  zones        = length(var.zones) == 2 ? var.zones : try(slice(data.aws_availability_zones.available[0].names, 0, 2), [])
  tags         = merge({ application = var.name }, var.tags)
  storage = {
    input_bucket  = module.storage.input_bucket
    output_bucket = module.storage.output_bucket
    input_arn     = module.storage.input_bucket_arn
    output_arn    = module.storage.output_bucket_arn
    kms_key_arn   = var.kms_key_arn
  }
  network = var.network != null ? var.network : one(module.network[*].network)

  # The defaults of the profile model (src/hevcq/domain/profile.py); a test holds both together.
  queue_defaults = {
    visibility_s = 300
    max_receives = 10
    max_job_s    = 39600
  }
  fleet_defaults = {
    cpu              = 4096
    memory_mib       = 8192
    scratch_gib      = 100
    architecture     = "x86_64"
    min_tasks        = 0
    max_tasks        = 20
    tasks_per_worker = 2
    spot_share       = 80
  }
}

module "storage" {
  source = "./modules/storage"

  name              = var.name
  account_id        = local.account_id
  kms_key_arn       = var.kms_key_arn
  tls_only          = var.tls_only
  input_expiry_days = var.tag_finished_inputs ? var.input_expiry_days : null
  work_expiry_days  = var.work_expiry_days
  force_destroy     = var.force_destroy
  public_reading    = module.playback[*].reading
  upload_origins    = var.web == null ? [] : [var.web.url]
  tags              = local.tags
}

module "playback" {
  source = "./modules/playback"
  count  = var.public_playback == null ? 0 : 1

  name            = var.name
  bucket          = { arn = module.storage.output_bucket_arn, domain_name = module.storage.output_bucket_domain }
  profiles        = keys(local.profiles)
  folder          = var.public_playback.folder
  allowed_origins = var.public_playback.allowed_origins
  aliases         = var.public_playback.aliases
  certificate_arn = var.public_playback.certificate_arn
  price_class     = var.public_playback.price_class
  tags            = local.tags
}

module "fanout" {
  source = "./modules/fanout"

  region     = local.region
  account_id = local.account_id
  name       = var.name
  bucket     = module.storage.input_bucket
  bucket_arn = module.storage.input_bucket_arn
  tls_only   = var.tls_only
  tags       = local.tags
}

# Keys and indexes are those of hevcq.backends.aws.dynamodb.schema.INDEXES; a test holds both together.
module "ledger" {
  source = "./modules/table"

  region              = local.region
  account_id          = local.account_id
  name                = var.ledger_table != "" ? var.ledger_table : var.name
  deletion_protection = !var.force_destroy
  tags                = local.tags

  attributes = { pk = "S", state = "S", moved_at = "N", source_key = "S" }
  indexes = {
    by_state  = { hash = "state", range = "moved_at", with = ["profile", "source_key"] }
    by_source = { hash = "source_key" }
  }
}

module "registry" {
  source = "./modules/registry"

  region       = local.region
  account_id   = local.account_id
  name         = var.name
  force_delete = var.force_destroy
  tags         = local.tags
}

module "network" {
  source = "./modules/network"
  count  = var.network == null ? 1 : 0

  name   = var.name
  region = local.region
  zones  = local.zones
  tags   = local.tags
}

module "profile_queue" {
  source   = "./modules/profile_queue"
  for_each = local.profiles

  region              = local.region
  account_id          = local.account_id
  name                = "${var.name}-${each.key}"
  profile             = each.key
  subscribe           = try(each.value.subscribe, true)
  numbers             = merge(local.queue_defaults, try(each.value.queue, {}))
  topic_arn           = module.fanout.topic_arn
  tls_only            = var.tls_only
  oldest_task_alarm_s = var.oldest_task_alarm_s
  alarm_topic_arn     = var.alarm_topic_arn
  tags                = merge(local.tags, { profile = each.key })
}

resource "aws_ecs_cluster" "this" {
  name = var.name
  tags = local.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

module "worker_service" {
  source   = "./modules/worker_service"
  for_each = local.profiles

  name       = "${var.name}-${each.key}"
  profile    = each.key
  deployed   = keys(local.profiles)
  makes_sets = try(each.value.container, "") == "hls"
  uploads    = var.web != null
  region     = local.region
  account_id = local.account_id
  image      = var.image
  cluster = {
    # This name also waits for the capacity providers.
    name = aws_ecs_cluster_capacity_providers.this.cluster_name
    arn  = aws_ecs_cluster.this.arn
  }
  network            = local.network
  fleet              = merge(local.fleet_defaults, try(each.value.fleet, {}))
  queue              = module.profile_queue[each.key].queue
  storage            = local.storage
  table              = { name = module.ledger.table_name, arn = module.ledger.table_arn }
  topic_arn          = module.fanout.topic_arn
  repository_arn     = module.registry.repository_arn
  log_retention_days = var.log_retention_days
  autoscaling        = var.autoscaling
  alarm_topic_arn    = var.alarm_topic_arn
  tags               = merge(local.tags, { profile = each.key })
}

module "input_tagger" {
  source = "./modules/input_tagger"
  count  = var.tag_finished_inputs ? 1 : 0

  name               = var.name
  region             = local.region
  account_id         = local.account_id
  image              = var.image
  architecture       = merge(local.fleet_defaults, try(local.profiles[keys(local.profiles)[0]].fleet, {})).architecture
  cluster            = aws_ecs_cluster.this.arn
  network            = local.network
  storage            = local.storage
  table              = { name = module.ledger.table_name, arn = module.ledger.table_arn }
  profiles           = keys(local.profiles)
  repository_arn     = module.registry.repository_arn
  log_retention_days = var.log_retention_days
  tags               = local.tags
}

module "web" {
  source = "./modules/web"
  count  = var.web == null ? 0 : 1

  name                   = var.name
  region                 = local.region
  account_id             = local.account_id
  url                    = var.web.url
  certificate_arn        = var.web.certificate_arn
  session_key_secret_arn = var.web.session_key_secret_arn
  cognito                = var.web.oidc == null
  oidc                   = var.web.oidc != null ? var.web.oidc : { issuer = "", client_id = "", operator_group = "", logout_url = "" }
  oidc_secret_arn        = var.web.oidc_secret_arn
  operators              = var.web.operators
  allowed_cidrs          = var.web.allowed_cidrs
  max_per_day            = var.web.max_per_day
  trusted_proxies        = length(var.web.trusted_proxies) > 0 ? var.web.trusted_proxies : module.network[*].cidr
  tasks                  = var.web.tasks
  architecture           = var.web.architecture
  image                  = var.image
  cluster                = aws_ecs_cluster.this.arn
  network                = local.network
  storage                = local.storage
  tag_inputs             = var.tag_finished_inputs
  ledger_table           = module.ledger.table_name
  topic_arn              = module.fanout.topic_arn
  profiles               = keys(local.profiles)
  repository_arn         = module.registry.repository_arn
  operator_policy_arn    = aws_iam_policy.operator.arn
  deletion_protection    = !var.force_destroy
  log_retention_days     = var.log_retention_days
  alarm_topic_arn        = var.alarm_topic_arn
  tags                   = local.tags
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [for index, profile in keys(local.profiles) : {
      type   = "metric"
      x      = (index % 2) * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title  = profile
        region = local.region
        period = 60
        view   = "timeSeries"
        metrics = [
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "${var.name}-${profile}", { label = "waiting" }],
          ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", "${var.name}-${profile}", { label = "in work" }],
          ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "${var.name}-${profile}-dlq", { label = "dead letters" }],
          ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "${var.name}-${profile}", { label = "oldest, s", yAxis = "right", stat = "Maximum" }],
          ["ECS/ContainerInsights", "RunningTaskCount", "ClusterName", var.name, "ServiceName", "${var.name}-${profile}", { label = "workers" }],
          ["hevcq", "JobsEnded", "Profile", profile, "End", "done", { label = "done", stat = "Sum" }],
          ["hevcq", "JobsEnded", "Profile", profile, "End", "retry", { label = "tried again", stat = "Sum" }],
          ["hevcq", "JobsEnded", "Profile", profile, "End", "buried", { label = "failed", stat = "Sum" }],
          ["hevcq", "EncodeSpeed", "Profile", profile, { label = "speed, x", yAxis = "right" }],
        ]
      }
    }]
  })
}

locals {
  # What holds videos and job records, by the names that make destroy asks for.
  data = {
    region        = local.region
    input_bucket  = module.storage.input_bucket
    output_bucket = module.storage.output_bucket
    table         = module.ledger.table_name
  }
}

# An apply that fails midway leaves this one at least, as soon as something can hold a video.
module "data_guard" {
  source = "./modules/teardown_guard"

  name          = var.name
  force_destroy = var.force_destroy
  holds         = local.data

  depends_on = [module.storage, module.ledger]
}

# Whoever takes a profile out of the farm, or renames it, is told what would go with its queues.
module "queue_guard" {
  source   = "./modules/teardown_guard"
  for_each = local.profiles

  name          = var.name
  profile       = each.key
  force_destroy = var.force_destroy

  depends_on = [module.profile_queue, module.worker_service]
}

module "teardown_guard" {
  source = "./modules/teardown_guard"

  name          = var.name
  force_destroy = var.force_destroy

  holds = merge(local.data, {
    videos_table    = join("", module.web[*].videos_table)
    user_pool       = join("", module.web[*].user_pool)
    repository      = module.registry.repository_name
    cluster         = aws_ecs_cluster.this.name
    services        = { for profile, service in module.worker_service : profile => service.service_name }
    queues          = { for profile, queue in module.profile_queue : profile => [queue.queue.url, queue.queue.dlq_url, queue.queue.subscription_dlq_url] }
    operator_policy = aws_iam_policy.operator.arn
  })

  depends_on = [
    module.storage, module.fanout, module.ledger, module.registry, module.network, module.profile_queue,
    module.worker_service, aws_ecs_cluster.this, aws_ecs_cluster_capacity_providers.this,
    aws_cloudwatch_dashboard.this, aws_cloudwatch_event_rule.this, aws_cloudwatch_event_target.this, aws_iam_policy.operator, aws_budgets_budget.monthly,
    module.playback, module.web, module.input_tagger, module.data_guard, module.queue_guard,
  ]
}
