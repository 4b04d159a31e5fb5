#!/usr/bin/env bash
# Builds both images for real and uses them as a cluster would: without root, on a read-only root file system, without
# capabilities or network. Needs no Docker and no registry of images: Debian's buildah and podman build and run, on base
# images that are made here by debootstrap under the names that the FROM lines ask for. TF Serving's own image cannot be
# made that way: its place is taken by the project's server behind TF Serving's command line, so what is tested of
# Dockerfile.serve is all but TF Serving itself.
# Needs root, 10 GB of disk, and: apt-get install buildah podman debootstrap runc
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath -m "${IMAGE_TEST_DIR:-build/image-test}")
train=localhost/covid-ct-train:test serve=localhost/covid-ct-serve:test
mkdir -p "$work/storage"
chown 10001:10001 "$work/storage"
planted=planted-$RANDOM$RANDOM$RANDOM
figures=()

timed() { # timed NAME COMMAND...: runs it and notes the seconds
    local name=$1 begun=$SECONDS
    shift
    printf '== %s\n' "$name"
    "$@"
    figures+=("$(printf '%-28s %4d s' "$name" $((SECONDS - begun)))")
}

base() { # base NAME: Debian's minimal system as an image
    [ -e "$work/base/etc/debian_version" ] ||
        debootstrap --variant=minbase bookworm "$work/base" http://deb.debian.org/debian >"$work/debootstrap.log"
    podman image exists "$1" || tar -C "$work/base" -c . | podman import --quiet - "$1" >/dev/null
}

build() { # build DOCKERFILE TAG
    # The machine's certificates, for package indexes that a proxy answers for; mounted, so never part of a layer.
    printf '[global]\ncert = /run/ca.crt\n' >"$work/pip.conf"
    AWS_SECRET_ACCESS_KEY=$planted buildah bud --isolation chroot --pull-never --network host --layers \
        --volume /etc/ssl/certs/ca-certificates.crt:/run/ca.crt:ro --volume "$work/pip.conf:/etc/pip.conf:ro" \
        --build-arg REVISION="$(git rev-parse HEAD)" --file "$1" --tag "$2" . >"$work/build.log" 2>&1 ||
        { tail -40 "$work/build.log" >&2; return 1; }
}

size() { # size NAME: of the training image; the serving image's says nothing with a stand-in as its base
    figures+=("$(podman image inspect --format '{{.Size}}' "$1" | awk -v n="$1" '{printf "%-28s %4.0f MB", n, $1 / 1e6}')")
}

# runc, but without the resource limits that a machine like this one may not raise.
cat >"$work/runtime" <<'E2'
#!/usr/bin/env bash
for ((i = 1; i < $#; i++)); do
    if [ "${!i}" = --bundle ]; then
        next=$((i + 1))
        python3 -c 'import json, sys
config = json.load(open(sys.argv[1]))
config["process"].pop("rlimits", None)
json.dump(config, open(sys.argv[1], "w"))' "${!next}/config.json"
    fi
done
exec runc "$@"
E2
chmod +x "$work/runtime"

contained() { # contained ARGUMENT...: podman run as the manifests do
    podman --runtime "$work/runtime" run --network none --read-only --read-only-tmpfs=false --cap-drop ALL \
        --security-opt no-new-privileges --tmpfs /tmp:rw,size=4g,mode=1777 --shm-size 512m \
        --volume "$work/storage:/storage" "$@"
}

train_inside() {
    rm -rf "${work:?}/storage/"*
    contained --rm "$train" bash -euc '
        test "$(id -u)" = 10001
        if touch /usr/written 2>/dev/null; then echo "the root file system can be written" >&2; exit 1; fi
        test "$(cat /proc/1/comm)" = tini
        python -m job sample /storage/scans --per-class 12
        python -m job train --run inside --set data.root=/storage/scans --set data.per_class=null \
            --set training.epochs=1 --set runs=/storage/runs --set export.root=/storage/models >/storage/summary.json'
    python3 -c 'import json, sys; s = json.load(open(sys.argv[1])); print("trained:", s["exported"]["url"], s["git_commit"])' \
        "$work/storage/summary.json"
}

kuberay_roles() { # The commands that KubeRay 1.7 gives head, worker and submitter (controllers/ray/common/pod.go, job.go)
    contained --rm --env RAY_AUTH_MODE=token --env RAY_AUTH_TOKEN="$planted" "$train" bash -uc '
        start="--object-store-memory=100000000 --block"
        # As KubeRay has it, "ulimit" may fail: it is followed by a semicolon.
        bash -c -- "ulimit -n 65536; ray start --head --num-cpus=0 --dashboard-host=0.0.0.0 $start" >/tmp/head.log 2>&1 &
        healthy() { python -c "import urllib.request; r=urllib.request.urlopen(\"$1\", timeout=5); exit(0 if b\"success\" in r.read() else 1)" 2>/dev/null; }
        for try in $(seq 60); do healthy http://localhost:52365/api/healthz && break; sleep 1; done
        set -e
        healthy http://127.0.0.1:8265/api/gcs_healthz
        ray health-check --address 127.0.0.1:6379 2>/dev/null
        bash -c -- "ulimit -n 65536; ray start --address=127.0.0.1:6379 --num-cpus=1 --dashboard-agent-listen-port=52366 --metrics-export-port=8081 $start" >/tmp/worker.log 2>&1 &
        for try in $(seq 60); do healthy http://localhost:52366/api/healthz && break; sleep 1; done
        healthy http://localhost:52366/api/healthz
        address=http://127.0.0.1:8265
        if env RAY_AUTH_TOKEN=wrong ray job list --address $address >/dev/null 2>&1; then echo "a wrong token was accepted" >&2; exit 1; fi
        if ! ray job status --address $address first >/dev/null 2>&1
        then ray job submit --address $address --submission-id first --no-wait -- python -m job --help >/dev/null
        fi; ray job logs --address $address --follow first' >"$work/roles.log" 2>&1 || { cat "$work/roles.log" >&2; return 1; }
    grep -q "Job 'first' succeeded" "$work/roles.log"
    echo "head, worker and submitter work; the wrong token does not"
}

stand_in() { # stand_in NAME: the project's server where TF Serving would be, unless TF Serving's own image is there
    local mark
    mark=$(podman image inspect --format '{{index .Labels "stand-in"}}' "$1" 2>/dev/null || echo none)
    [ -n "$mark" ] || { echo "using the image $1 that is here"; return; }
    printf '%s\n' '#!/bin/bash' 'for a in "$@"; do case $a in' \
        '--port=*) grpc=${a#*=} ;; --rest_api_port=*) rest=${a#*=} ;; --model_config_file=*) cat "${a#*=}" >/dev/null || exit 1 ;;' \
        'esac; done' 'exec python -m serving run --built-in --models /models --name covid_ct --rest-port $rest --grpc-port $grpc' \
        >"$work/tensorflow_model_server"
    chmod +x "$work/tensorflow_model_server"
    printf 'FROM %s\nUSER root\nCOPY tensorflow_model_server /usr/bin/\n' "$train" |
        buildah bud --isolation chroot --pull-never --quiet --label stand-in=yes --file - --tag "$1" "$work" >/dev/null
}

serve_inside() { # Ready only once the model is, and gone soon after SIGTERM
    local id begun ready=no
    id=$(contained --detach --volume "$work/storage/models:/models:ro" --env THREADS=2 "$serve")
    for _ in $(seq 60); do
        if nsenter --target "$(podman inspect --format '{{.State.Pid}}' "$id")" --net bash k8s/serve-image/ready covid_ct 8501 2>/dev/null
        then ready=yes; break; fi
        sleep 1
    done
    begun=$SECONDS
    podman --runtime "$work/runtime" stop --time 25 "$id" >/dev/null
    podman logs "$id" >"$work/serve.log" 2>&1
    podman --runtime "$work/runtime" rm --force "$id" >/dev/null
    [ "$ready" = yes ] && [ $((SECONDS - begun)) -lt 20 ] || { cat "$work/serve.log" >&2; return 1; }
    echo "ready, and stopped $((SECONDS - begun)) s after SIGTERM"
}

no_secret() { # Neither a file beside the sources nor the builder's environment gets into an image
    local image
    for image in "$train" "$serve"; do
        if podman save --quiet "$image" | grep --text --quiet --fixed-strings "$planted"; then
            echo "$image holds the planted secret" >&2
            return 1
        fi
    done
    echo "the planted secret is in no layer"
}

timed "base image" base "$(sed -n 's/^ARG BASE=//p' Dockerfile.train)"
mkdir -p build # within the build context, and no business of git's
echo "$planted" >build/planted-secret.env
timed "build Dockerfile.train" build Dockerfile.train "$train"
size "$train"
timed "train inside" train_inside
timed "KubeRay's roles" kuberay_roles
timed "stand-in for TF Serving" stand_in "$(sed -n 's/^ARG BASE=//p' Dockerfile.serve)"
timed "build Dockerfile.serve" build Dockerfile.serve "$serve"
timed "serve inside" serve_inside
timed "search for secrets" no_secret
printf '\n'
printf '%s\n' "${figures[@]}"
