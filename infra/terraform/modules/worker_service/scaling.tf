# Backlog per task: (waiting + in work) / running against fleet.tasks_per_worker.
# In-work tasks count, because a queue whose every task is in work looks empty; a count of zero
# running tasks is read as one, and a step policy leaves zero, since a target cannot.
#
# Every metric comes 1 to 3 minutes late, and some points never. A late count of running tasks must not
# be filled with zero: the backlog would be divided by one, and 3 uploads would start 18 tasks. The
# queue's last counts stand in for a late one.

locals {
  settles_s = 420
  waiting = {
    namespace   = "AWS/SQS"
    metric_name = "ApproximateNumberOfMessagesVisible"
    dimensions  = { QueueName = var.queue.name }
  }
  in_work = {
    namespace   = "AWS/SQS"
    metric_name = "ApproximateNumberOfMessagesNotVisible"
    dimensions  = { QueueName = var.queue.name }
  }
  running = {
    namespace   = "ECS/ContainerInsights"
    metric_name = "RunningTaskCount"
    dimensions  = { ClusterName = var.cluster.name, ServiceName = var.name }
  }
}

resource "aws_appautoscaling_target" "this" {
  count = var.autoscaling ? 1 : 0

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${var.cluster.name}/${aws_ecs_service.this.name}"
  min_capacity       = var.fleet.min_tasks
  max_capacity       = var.fleet.max_tasks
}

resource "aws_appautoscaling_policy" "backlog_per_task" {
  count = var.autoscaling ? 1 : 0

  name               = "${var.name}-backlog-per-task"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value = var.fleet.tasks_per_worker
    # Longer than a task's start (2 minutes) and the metrics' lag (3): before that the tasks just
    # asked for are not counted, and more would be asked for.
    scale_out_cooldown = local.settles_s
    scale_in_cooldown  = 600

    customized_metric_specification {
      dynamic "metrics" {
        for_each = { waiting = local.waiting, inwork = local.in_work, running = local.running }

        content {
          id          = metrics.key
          return_data = false

          metric_stat {
            stat = metrics.key == "running" ? "Average" : "Sum"

            metric {
              namespace   = metrics.value.namespace
              metric_name = metrics.value.metric_name

              dynamic "dimensions" {
                for_each = metrics.value.dimensions

                content {
                  name  = dimensions.key
                  value = dimensions.value
                }
              }
            }
          }
        }
      }

      metrics {
        id          = "backlog"
        label       = "backlog per task"
        expression  = "(FILL(waiting, REPEAT) + FILL(inwork, REPEAT)) / IF(running > 0, running, 1)"
        return_data = true
      }
    }
  }
}

resource "aws_appautoscaling_policy" "from_zero" {
  count = var.autoscaling ? 1 : 0

  name               = "${var.name}-from-zero"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  # ChangeInCapacity: an exact number could pull a busy fleet down if the alarm fires late.
  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    cooldown                = local.settles_s
    metric_aggregation_type = "Maximum"

    step_adjustment {
      scaling_adjustment          = 1
      metric_interval_lower_bound = 0
    }
  }
}
