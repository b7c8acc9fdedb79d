# An optional Cognito user pool: nobody signs up by themselves, operators are a group.

locals {
  cognito = {
    issuer         = var.cognito ? "https://cognito-idp.${var.region}.amazonaws.com/${aws_cognito_user_pool.this[0].id}" : ""
    client_id      = join("", aws_cognito_user_pool_client.this[*].id)
    operator_group = "operators"
    logout_url     = var.cognito ? "https://${aws_cognito_user_pool_domain.this[0].domain}.auth.${var.region}.amazoncognito.com/logout" : ""
  }
}

resource "aws_cognito_user_pool" "this" {
  count = var.cognito ? 1 : 0

  name                     = var.name
  username_attributes      = ["email"]
  auto_verified_attributes = ["email"]
  mfa_configuration        = "OPTIONAL"
  deletion_protection      = var.deletion_protection ? "ACTIVE" : "INACTIVE"
  tags                     = var.tags

  admin_create_user_config {
    allow_admin_create_user_only = true
  }

  software_token_mfa_configuration {
    enabled = true
  }

  password_policy {
    minimum_length                   = 12
    require_lowercase                = false
    require_numbers                  = false
    require_symbols                  = false
    require_uppercase                = false
    temporary_password_validity_days = 7
  }
}

resource "aws_cognito_user_pool_domain" "this" {
  count = var.cognito ? 1 : 0

  domain       = "${var.name}-${var.account_id}"
  user_pool_id = aws_cognito_user_pool.this[0].id
}

# A public client with PKCE: there is no secret to keep.
resource "aws_cognito_user_pool_client" "this" {
  count = var.cognito ? 1 : 0

  name                                 = "${var.name}-web"
  user_pool_id                         = aws_cognito_user_pool.this[0].id
  generate_secret                      = false
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_flows                  = ["code"]
  allowed_oauth_scopes                 = ["openid", "email", "profile"]
  supported_identity_providers         = ["COGNITO"]
  callback_urls                        = ["${var.url}${local.callback}"]
  logout_urls                          = ["${var.url}/sign-in"]
  prevent_user_existence_errors        = "ENABLED"
  enable_token_revocation              = true
}

resource "aws_cognito_user_group" "operators" {
  count = var.cognito ? 1 : 0

  name         = "operators"
  description  = "See the board, redrive, cancel and pause."
  user_pool_id = aws_cognito_user_pool.this[0].id
}
