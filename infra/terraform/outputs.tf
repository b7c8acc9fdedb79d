output "hevcq_toml" {
  description = "The configuration file of the CLI, ready to save as hevcq.toml."
  value       = <<-EOT
    backend = "aws"

    [aws]
    region = "${local.region}"
    input_bucket = "${module.storage.input_bucket}"
    output_bucket = "${module.storage.output_bucket}"
    topic_arn = "${module.fanout.topic_arn}"
    table = "${module.ledger.table_name}"
    profiles = ${jsonencode(keys(local.profiles))}
    tag_done = ${var.tag_finished_inputs}
  EOT
}

output "input_bucket" {
  description = "Bucket that uploads go to, below TODO/."
  value       = module.storage.input_bucket
}

output "output_bucket" {
  description = "Bucket that renditions appear in, below DONE/."
  value       = module.storage.output_bucket
}

output "queues" {
  description = "Queue and dead-letter queue addresses by profile."
  value       = { for profile, queue in module.profile_queue : profile => { url = queue.queue.url, dead_letters_url = queue.queue.dlq_url } }

  precondition {
    condition     = length(setsubtract(var.profiles, keys(local.known))) == 0
    error_message = "The variable profiles names what has no file in ${local.profiles_dir}: ${join(", ", setsubtract(var.profiles, keys(local.known)))}."
  }
}

output "repository_url" {
  description = "Registry that worker images are pushed to."
  value       = module.registry.repository_url
}

output "operator_policy_arn" {
  description = "Policy for people who ingest, watch and redrive."
  value       = aws_iam_policy.operator.arn
}

output "public_url" {
  description = "Address of public renditions: <public_url>/<profile>/public/…; empty: none are public."
  value       = join("", module.playback[*].url)
}

output "web" {
  description = "The page's load balancer, which the host of its url must be an alias of, and its user pool; null: there is no page."
  value       = one([for page in module.web : { address = page.address, user_pool = page.user_pool }])
}
