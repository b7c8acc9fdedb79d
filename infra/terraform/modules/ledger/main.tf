# The ledger: one table, on demand, that forgets ended jobs and can be taken back to any second.
# Keys and indexes are those of hevcq.backends.aws.dynamodb.schema.table_definition; a test holds both together.

locals {
  attributes = {
    pk         = "S"
    shard      = "S"
    moved_at   = "N"
    state      = "S"
    updated_at = "N"
    source_key = "S"
  }
  indexes = {
    by_shard = { hash = "shard", range = "moved_at", with = ["profile", "source_key"] }
    # Of releases before shards: jobs leave it with their next transition.
    by_state  = { hash = "state", range = "updated_at", with = ["profile", "source_key"] }
    by_source = { hash = "source_key", range = null, with = [] }
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
      name               = global_secondary_index.key
      hash_key           = global_secondary_index.value.hash
      range_key          = global_secondary_index.value.range
      projection_type    = length(global_secondary_index.value.with) > 0 ? "INCLUDE" : "KEYS_ONLY"
      non_key_attributes = length(global_secondary_index.value.with) > 0 ? global_secondary_index.value.with : null
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
