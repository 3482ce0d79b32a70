#!/usr/bin/env bash
# mount.sh BUCKET: mounts gs://BUCKET/data read-only at /data on an Ubuntu VM, installing gcsfuse.
set -euo pipefail

mountpoint -q /data && exit
keys=/usr/share/keyrings/cloud.google.asc
sudo curl -fsSo $keys https://packages.cloud.google.com/apt/doc/apt-key.gpg
echo "deb [signed-by=$keys] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
  sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
sudo apt-get update -qq
sudo apt-get install -qqy gcsfuse
sudo mkdir -p /data
sudo gcsfuse -o ro,allow_other --implicit-dirs --only-dir data "${1:?BUCKET}" /data
