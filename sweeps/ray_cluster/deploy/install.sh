#!/usr/bin/env bash
# install.sh EXTRAS: installs the checkout in which it is into its .venv, with Python 3.11.
#
#   bash sweeps/ray_cluster/deploy/install.sh tpu,gcs
#
# Needs python3 with pip. uv brings Python 3.11 where the machine has another, as images of TPU VMs
# do; Ray and the runner want the same on all hosts.
set -euo pipefail

cd "$(dirname "$0")/../../.."
python3 -m pip install -q --target .venv-uv uv
.venv-uv/bin/uv venv -q --clear --python 3.11 .venv
.venv-uv/bin/uv pip install -q -c constraints.txt -e ".[${1:?EXTRAS, such as tpu,gcs}]" 'ray[default]'
