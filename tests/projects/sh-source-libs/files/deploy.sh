#!/usr/bin/env bash
set -euo pipefail
source ./lib.sh
. "$(dirname "$0")/conf/common.sh"
target=${1:-test}
# shellcheck disable=SC1090
. "$(dirname "$0")/conf/$target.env"

banner
for host in $HOSTS; do
    say "copy $APP to $host:$PORT"
done
echo "$target" > last-deploy
