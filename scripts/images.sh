#!/usr/bin/env bash
# Build the images for all PLATFORMS on one base, named by its digest; push them if there is a REGISTRY.
# usage: scripts/images.sh VERSION BASE_IMAGE PLATFORMS REGISTRY
set -euo pipefail
version=$1 base=$2 platforms=$3 registry=$4

case $base in
*@sha256:*) ;;
*) base=$base@$(docker buildx imagetools inspect "$base" --format '{{.Manifest.Digest}}') ;;
esac
echo "base: $base"

# The home image stands on the worker's, which a build for several processors finds only in a registry,
# or as the context of its own Dockerfile: so both are built by one bake.
targets=$(mktemp)
trap 'rm -f "$targets"' EXIT
cat >"$targets" <<HCL
group "default" { targets = ["worker", "home"] }
target "common" {
  platforms = split(",", "$platforms")
  args      = { BASE_IMAGE = "$base", VERSION = "$version" }
  attest    = ["type=provenance,mode=max", "type=sbom"]
}
target "worker" {
  inherits   = ["common"]
  dockerfile = "docker/worker.Dockerfile"
  tags       = ["${registry:+$registry/}hevcq-worker:$version"]
}
target "home" {
  inherits   = ["common"]
  dockerfile = "docker/home.Dockerfile"
  contexts   = { worker = "target:worker" }
  args       = { WORKER_IMAGE = "worker" }
  tags       = ["${registry:+$registry/}hevcq-home:$version"]
}
HCL
docker buildx bake --file "$targets" ${registry:+--push}
