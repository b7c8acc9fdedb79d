# Tells by e-mail when the account's month gets dear. Of the whole account: a filter by tag counts nothing
# until somebody activates the tag for cost allocation, and a budget that counts nothing never tells.

resource "aws_budgets_budget" "monthly" {
  count = var.budget != null ? 1 : 0

  name         = "${var.name}-monthly"
  budget_type  = "COST"
  limit_amount = tostring(var.budget.monthly_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"
  tags         = local.tags

  dynamic "notification" {
    for_each = {
      spent_most = { type = "ACTUAL", percent = 80 }
      spent      = { type = "ACTUAL", percent = 100 }
      will_spend = { type = "FORECASTED", percent = 100 }
    }

    content {
      comparison_operator        = "GREATER_THAN"
      notification_type          = notification.value.type
      threshold                  = notification.value.percent
      threshold_type             = "PERCENTAGE"
      subscriber_email_addresses = var.budget.emails
    }
  }
}
