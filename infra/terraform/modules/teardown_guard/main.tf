# Stops a terraform destroy before it has harmed anything. It depends on what it guards, so that it is
# destroyed first; unless that was meant, it fails, and nothing else is touched. Without it, a bucket that
# holds videos loses its versions, its policy and its block of public access before AWS refuses to delete it.

resource "terraform_data" "guard" {
  # The names are here and no output, because a destroy that is refused has dropped the outputs already.
  input = { name = var.name, profile = var.profile, force_destroy = var.force_destroy, holds = var.holds }

  provisioner "local-exec" {
    when        = destroy
    interpreter = ["/bin/sh", "-c"]
    quiet       = true
    environment = { FARM = self.output.name, PROFILE = self.output.profile, FORCED = self.output.force_destroy }
    command     = <<-EOT
      test "$FORCED" = true && exit 0
      test "$HEVCQ_TEARDOWN" = "$FARM" && exit 0
      if test -n "$PROFILE"; then
        test "$HEVCQ_DROP_PROFILE" = "$PROFILE" && exit 0
        echo "The profile $PROFILE is no longer deployed by the farm $FARM: its queues would go with the tasks that wait in them and their dead letters. Look with hevcq status and hevcq failures list --profile $PROFILE, then say HEVCQ_DROP_PROFILE=$PROFILE to the same command. A renamed profile is a new one." >&2
        exit 1
      fi
      echo "The farm $FARM may still hold videos, so nothing was destroyed. Run make destroy: it says what is left and takes it down in order. Or apply force_destroy = true first, which lets a destroy delete everything." >&2
      exit 1
    EOT
  }
}
