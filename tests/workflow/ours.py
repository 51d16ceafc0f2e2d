"""The workflow of this repository: what `opsgate init` writes, with this repository's own values."""

from __future__ import annotations

from pathlib import Path

from opsgate.stages.init.init import Workflow

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / ".github/workflows/publish-mission-control-images.yml"

OURS = Workflow(
    title="Publish mission control images",
    environment="docker",
    registry="${{ vars.REGISTRY || 'ghcr.io' }}",
    environ="""
      # Where compose.yaml has its images; an owner with capitals needs the variable.
      MISSION_CONTROL_REGISTRY: ${{ vars.MISSION_CONTROL_REGISTRY ||"""
    """ format('ghcr.io/{0}', github.repository_owner) }}""",
    install="python -m pip install --require-hashes --requirement requirements-run.lock",
    prepare="""
      - name: Prepare what the sample's images are made of
        timeout-minutes: 3
        run: |
          if ! command -v busybox; then
            sudo apt-get update -qq
            sudo apt-get install -y -qq --no-install-recommends busybox-static
          fi
          examples/mission-control/docker/prepare
""",
    run="invoke",
)

if __name__ == "__main__":
    PATH.write_text(OURS.render(), encoding="utf-8")
