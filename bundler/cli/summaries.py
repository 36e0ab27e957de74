"""One line for each command, so that ``bundler --help`` imports none of them."""

SUMMARIES: dict[str, str] = {
    "plan": "Say what a bundle needs, what is here already, and what the target must have.",
    "fetch": "Fill .pkg-cache and the weights from locked, checksummed sources.",
    "pack": "Write a bundle: plan, fetch, rehearse, write.",
    "rehearse": "Install an environment from the store with the network cut.",
    "models": "List the models that have a manifest.",
    "env": "Print the cache variables of .pkg-cache, for eval.",
    "verify": "Check every byte of a bundle or of an installation.",
    "repair": "Mend a damaged bundle by its parity volumes.",
    "inspect": "Say what a bundle or an installation holds and needs.",
    "unpack": "Check, unpack and install a bundle.",
    "install": "Install environments again from an installation's own store.",
    "doctor": "Compare this host with what the model and the environment need.",
    "check": "Import torch and sglang, compile a kernel, try the GPUs.",
    "serve": "Launch the tensor-parallel SGLang server.",
    "status": "Say whether the detached server runs and is ready.",
    "logs": "Show the detached server's log.",
    "stop": "End the detached server and every process of it.",
    "smoke": "Ask a server and check its answers.",
    "systemd": "Write a systemd unit for the server.",
}
