"""`kerasbn-rewrite MODEL -o OUT`: give a saved model batch normalization, or prepare it for serving."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kerasbn.errors import KerasBNError, VerificationError, quoted
from kerasbn.files.config_file import NORMS, load_config
from kerasbn.files.formats import LAYOUTS
from kerasbn.options import DEFAULTS, RULE_POSITIONS, choices
from kerasbn.recipes import BN_X5, BN_X30

DONE, NOT_VERIFIED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def _read_rules(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    rules = []
    for value in values:
        glob, equals, position = value.rpartition("=")
        if not equals or not glob or position not in RULE_POSITIONS:
            raise click.BadParameter(
                f"{value!r} is not of the form GLOB=POSITION, where POSITION is one of {', '.join(RULE_POSITIONS)}.",
                param=parameter,
            )
        rules.append((glob, position))
    return tuple(rules)


_PATH = click.Path(path_type=Path)
_SCALE = click.FloatRange(min=0, min_open=True)
_OF_REWRITE = (
    *("position", "rules", "norm", "recurrent", "dropout", "custom_layers", "normalize_inputs"),
    *(
        "local_response_normalization",
        "learning_rate_scale",
        "weight_decay_scale",
        "decay_speedup",
        "preserve",
        "shared",
        "merge_branches",
    ),
)
"""The options of `kerasbn.rewrite` that the command and its configuration file have, by their names there."""


def _words(flag: str, help: str) -> Callable[[Any], Any]:  # noqa: A002
    """An option of `kerasbn.rewrite` whose values are words, with its default there."""
    name = flag.removeprefix("--").replace("-", "_")
    kind = click.Choice(choices(name))
    return click.option(flag, type=kind, default=dict(DEFAULTS)[name], show_default=True, help=help)


_RECIPES = {"bn-x5": BN_X5, "bn-x30": BN_X30}


@click.command("kerasbn-rewrite", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=_PATH)
@click.option(
    *("-o", "--output", "outputs"),
    type=_PATH,
    multiple=True,
    metavar="OUT",
    help="Where to write: .keras, .onnx, .tflite, .xml (OpenVINO), or a folder for a SavedModel. Repeatable.",
)
@_words("--position", "Where BN goes relative to the activation.")
@click.option(
    *("--rule", "rules"),
    multiple=True,
    callback=_read_rules,
    metavar="GLOB=POSITION",
    help="The position for the layers whose path matches; 'skip' leaves them alone. Repeatable, the first match wins.",
)
@click.option(
    "--norm",
    type=click.Choice(NORMS),
    default="kerasbn",
    show_default=True,
    help="Whose BN layer to insert. With 'keras' the file loads without kerasbn.",
)
@_words("--recurrent", "Normalize the input products of recurrent layers, over the batch and all steps.")
@_words("--dropout", "Which Dropout to take out.")
@click.option(
    *("--lr-scale", "learning_rate_scale"),
    type=_SCALE,
    help="Multiply the compiled optimizer's learning rate by this.",
)
@click.option(
    "--weight-decay-scale",
    type=_SCALE,
    help="Multiply weight decay, and the L1 and L2 regularizers of layers, by this.",
)
@click.option(
    "--decay-speedup",
    type=_SCALE,
    help="Let the learning rate of the compiled optimizer decay this many times as fast.",
)
@_words("--custom-layers", "Open layers of your own that hold linear layers or BN, or keep them whole.")
@click.option("--normalize-inputs", is_flag=True, help="Normalize the inputs as well.")
@_words("--local-response-normalization", "What becomes of layers that do that.")
@click.option(
    "--recipe",
    type=click.Choice(list(_RECIPES)),
    help="The published settings of that name; options given besides win over them.",
)
@click.option(
    "--config",
    type=_PATH,
    metavar="FILE",
    help='A TOML file with the options of kerasbn.rewrite: position = "after". Options given besides win over them.',
)
@click.option(
    "--data",
    type=_PATH,
    metavar="FILE",
    help="Start inserted BN from the statistics measured on the inputs in FILE, so that training goes on where a "
    "trained model stands: .npy, or .npz with an array by the name of each input.",
)
@click.option(
    "--calibrate",
    type=_PATH,
    metavar="FILE",
    help="Measure the statistics of every BN on the inputs in FILE, as with --data.",
)
@click.option("--preserve/--no-preserve", default=True, show_default=True, help="Start BN as the identity.")
@_words("--shared", "Whether a layer called k times gets k BNs or one; auto: one if the calls are twins.")
@click.option(
    "--fold/--no-fold",
    default=None,
    help="Fold BN into other layers in what is written.  [default: fold, but not in .keras]",
)
@click.option(
    "--merge-branches/--no-merge-branches",
    default=True,
    show_default=True,
    help="Where BN is folded, make one layer of parallel linear branches (RepVGG and its kin).",
)
@click.option("--opset", type=click.IntRange(13, 18), default=17, show_default=True, help="The opset of ONNX files.")
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="Write folders as that model server wants them: a SavedModel for TensorFlow Serving, ONNX for Triton.",
)
@click.option(
    "--quantize",
    type=click.Choice(["float16", "int8_dynamic", "int8"]),
    help="Write ONNX and LiteRT files with smaller numbers, in float16 OpenVINO's too. int8 measures the ranges of "
    "activations on the inputs of --calibrate, else of --data.",
)
@click.option(
    "--weights", type=_PATH, metavar="FILE", help="The weights (.h5) of a MODEL that is an architecture in JSON."
)
@click.option(
    *("--import", "modules"),
    multiple=True,
    metavar="MODULE",
    help="Import a module that registers custom layers and functions. Repeatable.",
)
@click.option(
    "--custom-objects",
    multiple=True,
    metavar="MODULE:NAME",
    help="Take the custom layer or function NAME, or a dict of several, from a module. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
@click.option("--no-verify", is_flag=True, help="Skip the checks of what was written.")
@click.option("--force", is_flag=True, help="Overwrite existing outputs.")
@click.option("--unsafe", is_flag=True, help="Allow code in the file (Lambda layers). For files that you trust.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the whole plan, and what TensorFlow has to say.")
@click.version_option(package_name="kerasbn", prog_name="kerasbn-rewrite")
@click.pass_context
def command(context: click.Context, /, model: Path, outputs: tuple[Path, ...], **options: object) -> None:
    """Give the saved Keras model MODEL batch normalization and write it to each OUT.

    MODEL is a .keras or .h5 file, the folder of a SavedModel of Keras 2, or an architecture in JSON: with
    --weights, or TensorFlow.js's model.json.

    MODEL itself is never touched. Every OUT is checked against the Keras model before it takes its
    place. Exit status: 0 done and verified, 1 verification failed, 2 bad usage or a bad file, 130
    interrupted; nothing is written unless it is 0.
    """
    from kerasbn.cli.job import Job

    if not outputs and not options["dry_run"]:
        raise click.UsageError("Missing option '-o': where to write. '--dry-run' shows the plan without writing.")
    settings = {name: options.pop(name) for name in _OF_REWRITE}
    recipe, config = options.pop("recipe"), options.pop("config")
    named = {} if recipe is None else _RECIPES[str(recipe)]
    written = {} if config is None else load_config(Path(str(config)), _OF_REWRITE)
    for name, value in {**named, **written}.items():
        if context.get_parameter_source(name) is ParameterSource.DEFAULT:
            settings[name] = value
    Job(model=model, outputs=outputs, settings=settings, **options).run()  # type: ignore[arg-type]


def run() -> None:
    """The entry point: run the command, and turn what goes wrong into one line and an exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a path or a table that the terminal has no letters for
    sys.exit(_status())


def _status() -> int:
    try:
        return int(command.main(standalone_mode=False) or DONE)
    except click.exceptions.Abort:
        return _complain("interrupted; nothing was written.", INTERRUPTED)
    except click.ClickException as error:
        return _complain(error.format_message(), BAD_INPUT)
    except VerificationError as error:
        return _complain(str(error), NOT_VERIFIED)
    except KerasBNError as error:
        return _complain(str(error), BAD_INPUT)
    except Exception as error:
        if {"-v", "--verbose"} & set(sys.argv):
            raise
        return _complain(
            f"{type(error).__name__}: {quoted(error)}. Please report this, with what -v prints.", BAD_INPUT
        )


def _complain(message: str, status: int) -> int:
    click.echo(f"kerasbn-rewrite: {' '.join(click.unstyle(message).split())}", err=True)
    return status
