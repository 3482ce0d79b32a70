#!/usr/bin/env bash
# slice.sh TYPE NAME HEAD: gets a TPU slice as a queued resource and joins its hosts to a Ray head.
#
#   PROJECT=p ZONE=us-central2-b bash sweeps/ray_cluster/deploy/slice.sh v4-32 a1 10.128.0.2
#
# TYPE is the Cloud's (v4-32, v5litepod-16, v6e-16). SPOT=0 asks for one that is not preempted.
# Run it again when the slice is gone: it deletes what is left of it and waits for another.
set -euo pipefail

type=${1:?TYPE NAME HEAD} name=${2:?TYPE NAME HEAD} head=${3:?TYPE NAME HEAD}
where=(--project="${PROJECT:?set PROJECT}" --zone="${ZONE:?set ZONE}")
market=spot
[[ ${SPOT:-1} == 1 ]] || market=on-demand

case $type in
  v4-*) runtime=tpu-ubuntu2204-base ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *) echo "slice.sh: no runtime version known for $type: v4-N, v5litepod-N, v5p-N or v6e-N" >&2; exit 2 ;;
esac

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

gcloud compute tpus tpu-vm scp --recurse . "$name:study" "${where[@]}" --worker=all
# Ray finds the slice's name, topology and worker numbers in the metadata of the host by itself.
gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="
  set -e
  cd study
  [ -d .venv ] || python3 -m venv .venv
  .venv/bin/pip install -q -c constraints.txt -e '.[tpu,gcs]'
  .venv/bin/ray stop
  .venv/bin/ray start --address=$head:6379 --labels=ray.io/market-type=$market
  nohup .venv/bin/python -m sweeps.ray_cluster.preemption_agent > preemption.log 2>&1 &
"
