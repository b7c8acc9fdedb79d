# The ledger: one table, on demand, that forgets ended jobs and can be taken back to any second.
# Keys and indexes are those of hevcq.aws.table.table_definition; a test holds both together.

locals {
  attributes = {
    pk            = "S"
    profile_state = "S"
    updated_at    = "N"
    source_key    = "S"
  }
  indexes = {
    by_state  = { hash = "profile_state", range = "updated_at" }
    by_source = { hash = "source_key", range = null }
  }
}

data "aws_partition" "current" {}

resource "aws_dynamodb_table" "this" {
  name                        = var.name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  deletion_protection_enabled = var.deletion_protection
  tags                        = var.tags

  dynamic "attribute" {
    for_each = local.attributes

    content {
      name = attribute.key
      type = attribute.value
    }
  }

  dynamic "global_secondary_index" {
    for_each = local.indexes

    content {
      name            = global_secondary_index.key
      hash_key        = global_secondary_index.value.hash
      range_key       = global_secondary_index.value.range
      projection_type = "KEYS_ONLY"
    }
  }

  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}
