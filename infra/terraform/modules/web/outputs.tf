output "address" {
  description = "Name of the load balancer: the host of url becomes an alias (or CNAME) of it."
  value       = aws_lb.this.dns_name
}

output "user_pool" {
  description = "Id of the Cognito user pool that people are added to; empty: none was made."
  value       = join("", aws_cognito_user_pool.this[*].id)
}

output "videos_table" {
  description = "Table of uploaded videos."
  value       = module.videos.table_name
}

output "service_name" {
  description = "Name of the ECS service."
  value       = aws_ecs_service.this.name
}
