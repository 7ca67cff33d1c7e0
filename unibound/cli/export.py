"""`unibound export`: a model that others can load."""

from pathlib import Path


def export(run: Path, to: str, *, certify: bool = False, private: bool = False) -> None:
    """Write a trained model to a folder that others can load and judge, or push it to a model hub.

    Args:
        run: folder of a run.
        to: a new folder, or hf:USER/NAME for the Hugging Face hub, which needs huggingface_hub.
        certify: certify the model's likelihood first, and put the certificate beside it, or the refusal.
        private: of a repository on the hub that is not there yet.
    """
    from unibound.front import hub
    from unibound.front.fit import load
    from unibound.runs.export import export
    from unibound.runs.result import finite

    certificate = finite(load(run).certify().document) if certify else None
    if (name := hub.name_of(to)) is None:
        print(export(run, Path(to), certificate))
        return
    with hub.drafted() as folder:
        print(hub.push(export(run, folder, certificate), name, private=private))
