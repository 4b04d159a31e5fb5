#!/usr/bin/env bash
# Builds Dockerfile.train for real and trains inside the image, without a registry of images and without Docker:
# Debian's buildah and podman, and a base image made by debootstrap under the name that the FROM line asks for.
# Needs root and the packages buildah, podman, debootstrap and runc. Prints the image's size and each step's time.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${IMAGE_TEST_DIR:-build/image-test}
image=localhost/covid-ct-train:test
mkdir -p "$work"
work=$(realpath "$work")
steps=()
timed() { # timed NAME COMMAND...: runs it and notes the seconds
    local name=$1 begun=$SECONDS
    shift
    "$@"
    steps+=("$name: $((SECONDS - begun)) s")
}

make_base() { # make_base NAME: Debian's minimal system as an image
    [ -e "$work/base/etc/debian_version" ] ||
        debootstrap --variant=minbase bookworm "$work/base" http://deb.debian.org/debian >"$work/debootstrap.log"
    tar -C "$work/base" -c . | podman import --quiet - "$1" >/dev/null
}

build() { # build DOCKERFILE TAG [ARGUMENT...]
    local file=$1 tag=$2
    shift 2
    # The machine's certificates, for package indexes that a proxy of the site answers for; never part of a layer.
    printf '[global]\ncert = /run/ca.crt\n' >"$work/pip.conf"
    buildah bud --isolation chroot --pull-never --network host --layers \
        --volume /etc/ssl/certs/ca-certificates.crt:/run/ca.crt:ro --volume "$work/pip.conf:/etc/pip.conf:ro" \
        --build-arg REVISION="$(git rev-parse HEAD)" "$@" --file "$file" --tag "$tag" . >"$work/build.log" 2>&1 ||
        { tail -40 "$work/build.log" >&2; return 1; }
}

base=$(sed -n 's/^ARG BASE=//p' Dockerfile.train)
timed "base image" make_base "$base"
timed "build" build Dockerfile.train "$image"
podman image inspect --format '{{.Size}}' "$image" | awk '{printf "size: %.0f MB\n", $1 / 1e6}'
printf '%s\n' "${steps[@]}"
