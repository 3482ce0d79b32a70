#!/usr/bin/env bash
# slice.sh TYPE NAME: gets a TPU slice as a queued resource, installs the committed code on its hosts
# and starts a worker on them, without Ray. JAX finds the hosts by the metadata of the machines.
#
#   export PROJECT=my-project ZONE=us-central2-b BUCKET=my-bucket STUDY=table-8
#   bash sweeps/ray_cluster/deploy/slice.sh v4-32 a1        # in the checkout; a2, a3 ... for more
#
# TYPE is the Cloud's (v4-32, v5litepod-16, v6e-16). Records go to gs://BUCKET/runs; data sets are
# read from gs://BUCKET/data. SPOT=0 asks for a slice that is not preempted. With WANDB_API_KEY wandb
# is online. With HEAD=ADDRESS the hosts join the Ray cluster there instead of starting a worker, with
# the token in ~/.ray/auth_token.
# Run it again when the slice is gone: it deletes what is left of it and waits for another.
#
# Parsed by bash and shellcheck, and run with a stand-in gcloud; not executed on a cloud.
set -euo pipefail

type=${1:?TYPE NAME} name=${2:?TYPE NAME}
where=(--project="${PROJECT:?set PROJECT}" --zone="${ZONE:?set ZONE}")
: "${BUCKET:?set BUCKET}"
market=spot
[[ ${SPOT:-1} == 1 ]] || market=on-demand

case $type in
  v4-*) runtime=tpu-ubuntu2204-base ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *) echo "slice.sh: no runtime version known for $type: v4-N, v5litepod-N, v5p-N or v6e-N" >&2; exit 2 ;;
esac

cd "$(dirname "$0")/../../.."
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
# Keys go in a file, because logs and lists of processes show commands.
(umask 077; {
  echo "export JAX_COMPILATION_CACHE_DIR=gs://$BUCKET/jax-cache RAY_worker_niceness=0"
  [[ -z ${WANDB_API_KEY:-} ]] || echo "export WANDB_MODE=online WANDB_API_KEY=$WANDB_API_KEY"
  [[ -z ${HEAD:-} ]] || echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(< ~/.ray/auth_token)"
} > "$files/study.env")
if [[ -n ${HEAD:-} ]]; then
  ray=".venv/bin/ray start --address=$HEAD:6379 --labels=ray.io/market-type=$market"
  work=
else
  ray=
  work=".venv/bin/study work ${STUDY:?set STUDY} --machine $type --root gs://$BUCKET/runs --data /data"
fi

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    --format='value(state.state)' 2>/dev/null || true
}

case $(state) in
  ACTIVE | "" | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES | CREATING) ;;
  *) gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet ;;
esac
if [[ -z $(state) ]]; then
  spot=()
  [[ $market == spot ]] && spot=(--spot)
  gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$runtime" "${spot[@]}"
fi
until [[ $(state) == ACTIVE ]]; do
  [[ $(state) == FAILED ]] && { echo "slice.sh: $name failed; run the same again" >&2; exit 1; }
  sleep "${POLL:-30}"
done

# A clone, so that records name the commit and nothing of this machine's environment goes along.
git clone -q --depth 1 "file://$PWD" "$files/study"
tar cz -C "$files" study study.env > "$files/study.tgz"
gcloud compute tpus tpu-vm scp "$files/study.tgz" "$name:" "${where[@]}" --worker=all
gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="
  set -e
  if [ -f study.pid ] && kill \$(cat study.pid) 2> /dev/null; then  # what runs saves first
    tail --pid=\$(cat study.pid) -f /dev/null
  fi
  [ ! -x study/.venv/bin/ray ] || study/.venv/bin/ray stop
  rm -rf study
  tar xzf study.tgz
  rm study.tgz
  cd study
  bash sweeps/ray_cluster/deploy/install.sh tpu,gcs
  bash sweeps/ray_cluster/deploy/mount.sh $BUCKET
  . ~/study.env
  $ray
  nohup .venv/bin/python -m sweeps.ray_cluster.preemption_agent $work > ~/study.log 2>&1 < /dev/null &
  echo \$! > ~/study.pid
"
