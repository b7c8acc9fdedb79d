output "network" {
  description = "The network in the form that worker services take."
  value = {
    vpc_id           = aws_vpc.this.id
    subnet_ids       = aws_subnet.workers[*].id
    assign_public_ip = true
  }

  depends_on = [aws_route_table_association.workers]
}

output "cidr" {
  description = "Address range of the network."
  value       = var.cidr
}
