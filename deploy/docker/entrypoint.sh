#!/bin/sh
# What the image's arguments are for: to Beam's boot program what a runner starts a worker or a pool
# of workers with, to the job all else. boot never runs without one of these, and they are no options
# of the job; others of boot's, like --artifact_endpoint, are options of Beam's pipelines too. Go
# takes an option with one dash or two.
set -eu
for argument in "$@"; do
	case "${argument%%=*}" in
	-id | --id | -worker_pool | --worker_pool | -setup_only | --setup_only)
		exec /opt/apache/beam/boot "$@"
		;;
	esac
done
exec python -m beam_pipeline "$@"
