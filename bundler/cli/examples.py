"""What each command's help ends with: lines as one would type them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "plan": (
        "bundler plan --env cu128 --model GLM-4.7",
        "bundler plan --env cu128 --model GLM-4.7 --target host.json",
        "bundler plan --env default --list",
    ),
    "fetch": (
        "bundler fetch --env cu128 --model GLM-4.7",
        "bundler fetch --model hf:Qwen/Qwen2-VL-7B-Instruct --jobs 4",
    ),
    "pack": (
        "bundler pack --env cu128 --model GLM-4.7 --sign ~/.ssh/id_ed25519",
        "bundler pack --model GLM-4.7 --stream -o /media/disk1 -o /media/disk2",
        "bundler pack --env cu128 --since bundles/GLM-4.7-cu128 --name update",
        "bundler pack --env cu128 --volume-size 3900MiB --dry-run --json",
    ),
    "rehearse": ("bundler rehearse --env cu128", "bundler rehearse --env default --installer native"),
    "models": ("bundler models", "bundler models --json"),
    "env": ('eval "$(bundler env)"',),
    "clean": ("bundler clean --dry-run", "bundler clean --keep-env cu128 --caches"),
    "sign": (
        "bundler sign bundles/GLM-4.7-cu128 --key ~/.ssh/id_ed25519",
        "bundler sign /media/disk1 /media/disk2 --key ~/.ssh/id_ed25519_sk.pub",
    ),
    "copy": (
        "bundler copy bundles/GLM-4.7-cu128 /media/disk1 /media/disk2",
        "bundler copy bundles/GLM-4.7-cu128 /media/disk --in-turn",
    ),
    "share": ("bundler share /media/disk1/GLM-4.7-cu128", "bundler share --bind 10.0.0.1 --port 8001"),
    "verify": (
        "bundler verify bundles/GLM-4.7-cu128",
        "bundler verify /media/disk1 /media/disk2 --deep",
        "bundler verify /opt/glm --deep --json",
    ),
    "repair": (
        "bundler repair /media/disk1/GLM-4.7-cu128",
        "bundler repair /media/disk1 /media/disk2 --to /data/sound",
    ),
    "inspect": ("bundler inspect bundles/GLM-4.7-cu128", "bundler inspect /opt/glm --json"),
    "report": (
        "bundler report bundles/GLM-4.7-cu128 --verify -o sheet.html",
        "bundler report bundles/GLM-4.7-cu128 --sbom cyclonedx -o -",
    ),
    "licenses": ("bundler licenses bundles/GLM-4.7-cu128",),
    "diff": (
        "bundler diff bundles/GLM-4.7-cu128 bundles/update",
        "bundler diff /opt/glm /media/disk1/update --json",
    ),
    "unpack": (
        "bundler unpack /media/disk1 /media/disk2 /opt/glm",
        "bundler unpack --dry-run /media/disk1 /opt/glm",
        "bundler unpack --partial /media/disk1 /opt/glm",
        "bundler unpack http://10.0.0.1:8000/ /opt/glm --allowed-signers signers",
    ),
    "install": ("bundler install /opt/glm", "bundler install --env cu128 --prune-store"),
    "history": ("bundler history", "bundler history -C /opt/glm --json"),
    "rollback": ("bundler rollback", "bundler rollback -C /opt/glm --to 2"),
    "remove": ("bundler remove cu126 -C /opt/glm", "bundler remove GLM-4.7-FP8"),
    "uninstall": ("bundler uninstall /opt/glm", "bundler uninstall /opt/glm --yes"),
    "du": ("bundler du", "bundler du /opt/glm --json"),
    "doctor": (
        "bundler doctor",
        "bundler doctor --deep --model GLM-4.7",
        "bundler doctor --describe > host.json",
        "bundler doctor --bundle bundles/GLM-4.7-cu128 --target host.json",
    ),
    "check": ("bundler check", "bundler check --env cu128 --timeout 900"),
    "serve": (
        "bundler serve",
        "bundler serve --detach --api-key-file /etc/glm.key",
        "bundler serve --tp-size 4 -- --max-running-requests 64",
        "bundler serve --nnodes 2 --node-rank 0 --dist-init-addr 10.0.0.1:5000",
        "bundler serve --dry-run",
    ),
    "status": ("bundler status", "bundler status --wait 3600 && bundler smoke"),
    "logs": ("bundler logs -n 100", "bundler logs --follow"),
    "stop": ("bundler stop", "bundler stop --all --grace 60"),
    "smoke": ("bundler smoke", "bundler smoke --model GLM-4.7 --tp-size 8 --json"),
    "systemd": (
        "bundler systemd --user glm -o /etc/systemd/system",
        "bundler systemd --api-key-file /etc/glm.key -- --max-running-requests 64",
    ),
    "completion": (
        'eval "$(bundler completion bash)"',
        "bundler completion fish > ~/.config/fish/completions/bundler.fish",
    ),
}
