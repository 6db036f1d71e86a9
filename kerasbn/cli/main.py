"""`kerasbn-rewrite MODEL -o OUT`: give saved models batch normalization, or prepare them for serving."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kerasbn.cli.config import RECIPES, take_config, take_recipe
from kerasbn.cli.failure import BAD_INPUT, DONE, INTERRUPTED, TERMINATED, UNREAD, Failure, complain
from kerasbn.cli.help import Command, Option
from kerasbn.cli.rule import Rate, Rule
from kerasbn.cli.signals import Terminated, ended_by_signals
from kerasbn.files.formats import FORMATS, LAYOUTS
from kerasbn.options import DEFAULTS, choices

NAME = "kerasbn-rewrite"
NORMS = ("kerasbn", "keras")
"""Whose batch normalization is inserted, where there is no layer to show."""

_PATH = click.Path(path_type=Path)
_SCALE = click.FloatRange(min=0, min_open=True)
_OF_REWRITE = (
    *("position", "rules", "norm", "existing", "recurrent", "dropout", "custom_layers", "normalize_inputs"),
    *(
        "local_response_normalization",
        "learning_rate_scale",
        "weight_decay_scale",
        "decay_speedup",
        "rates",
        "decay_exclude",
        "l2",
        "preserve",
        "shared",
        "merge_branches",
    ),
)
"""The options of `kerasbn.rewrite` that the command has, by their names there."""

_BELOW = {
    "Examples": (
        (f"{NAME} net.keras --dry-run", "What would change, and why the rest would not."),
        (f"{NAME} net.h5 -o net_bn.keras --lr-scale 2", "Train this one."),
        (
            f"{NAME} net.keras -o net.onnx -o net_saved_model --position none",
            "Nothing is inserted; the batch normalization that is there is folded for serving.",
        ),
        (
            f"{NAME} net.keras -o net.tflite --quantize int8 --calibrate sample.npz",
            "Measure the statistics of BN and the ranges of activations on some inputs.",
        ),
        (f"{NAME} net.keras --diagnose --data sample.npz", "What is wrong with its batch normalization."),
        (f"{NAME} models/*.keras -o served/ --format onnx", "All of them in one run."),
        (f"{NAME} epoch_*.keras --average --calibrate sample.npz -o mean.onnx", "The mean of checkpoints."),
    ),
    "Exit status": (
        (f"{DONE}", "Done and verified."),
        ("1", "The verification failed; nothing was written."),
        (f"{BAD_INPUT}", "Bad usage or a bad file; nothing was written."),
        (f"{INTERRUPTED}, {TERMINATED}", "Interrupted (Ctrl-C), terminated (SIGTERM); nothing more was written."),
        (f"{UNREAD}", "Nothing reads what is printed any more, as in '| head'; nothing more was written."),
    ),
}


def _section(subject: str) -> Callable[..., Callable[[Any], Any]]:
    """How options of a subject are declared."""
    return functools.partial(click.option, cls=Option, subject=subject)


_input, _normalization, _training, _output, _run = map(
    _section, ("Input", "Normalization", "Training", "Output", "Run")
)


def _words(section: Callable[..., Any], flag: str, help: str) -> Callable[[Any], Any]:  # noqa: A002
    """An option of `kerasbn.rewrite` whose values are words, with its default there."""
    name = flag.removeprefix("--").replace("-", "_")
    kind = click.Choice(choices(name))
    return section(flag, type=kind, default=dict(DEFAULTS)[name], show_default=True, help=help)  # type: ignore[no-any-return]


def _read_outputs(context: click.Context, parameter: click.Parameter, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    if Path("-") in paths:
        raise click.BadParameter(
            "'-': what is written is checked on the disk first, and a format may take several files; nothing goes to "
            "stdout. Give a path.",
            param=parameter,
        )
    return paths


@click.command(
    *(NAME, Command),
    usage=("MODEL...", "-o OUT", "[OPTIONS]"),
    sections=_BELOW,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("models", type=_PATH, nargs=-1, required=True, metavar="MODEL...")
@_input(
    "--average",
    is_flag=True,
    help="Take the MODELs, such as checkpoints of one training, for one model whose weights are the mean of theirs. "
    "Its statistics are measured on the inputs of --calibrate.",
)
@_input("--weights", type=_PATH, metavar="FILE", help="The weights (.h5) of a MODEL that is an architecture in JSON.")
@_input(
    *("--import", "modules"),
    multiple=True,
    metavar="MODULE",
    help="Import a module that registers custom layers and functions. Repeatable.",
)
@_input(
    "--custom-objects",
    multiple=True,
    metavar="MODULE:NAME",
    help="Take the custom layer or function NAME, or a dict of several, from a module. Repeatable.",
)
@_input("--unsafe", is_flag=True, help="Allow code in the file (Lambda layers). For files that you trust.")
@_input(
    "--data",
    type=_PATH,
    metavar="FILE",
    help="Start inserted BN from the statistics measured on the inputs in FILE, so that training goes on where a "
    "trained model stands: .npy, or .npz with an array by the name of each input.",
)
@_input(
    "--calibrate",
    type=_PATH,
    metavar="FILE",
    help="Measure the statistics of every BN on the inputs in FILE, as with --data.",
)
@_input(
    "--blend",
    type=click.FloatRange(0, 1),
    default=1.0,
    metavar="SHARE",
    help="How much the statistics of --calibrate count against those of the model, for a small sample.  [default: 1]",
)
@_words(_normalization, "--position", "Where BN goes relative to the activation.")
@_normalization(
    *("--rule", "rules"),
    type=Rule(),
    multiple=True,
    metavar="GLOB=POSITION",
    help="The position for the layers whose path matches; 'skip' leaves them alone. Repeatable, the first match wins.",
)
@_normalization(
    "--norm",
    type=click.Choice(NORMS),
    default="kerasbn",
    show_default=True,
    help="Whose BN layer to insert. With 'keras' the file loads without kerasbn.",
)
@_words(_normalization, "--existing", "What becomes of normalization that is there: replaced by BN, or removed.")
@_words(
    _normalization, "--recurrent", "Normalize the input products of recurrent layers, over the batch and all steps."
)
@_words(_normalization, "--shared", "Whether a layer called k times gets k BNs or one; auto: one if they are twins.")
@_words(_normalization, "--custom-layers", "Open layers of your own that hold linear layers or BN, or keep them whole.")
@_normalization("--normalize-inputs", is_flag=True, help="Normalize the inputs as well.")
@_normalization("--preserve/--no-preserve", default=True, show_default=True, help="Start BN as the identity.")
@_training(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    callback=take_recipe,
    is_eager=True,
    expose_value=False,
    help="The published settings of that name; options given besides win over them.",
)
@_words(_training, "--dropout", "Which Dropout to take out.")
@_words(_training, "--local-response-normalization", "What becomes of layers that do that.")
@_training(
    *("--lr-scale", "learning_rate_scale"),
    type=_SCALE,
    metavar="FACTOR",
    help="Multiply the compiled optimizer's learning rate by this.",
)
@_training(
    "--weight-decay-scale",
    type=_SCALE,
    metavar="FACTOR",
    help="Multiply weight decay, and the L1 and L2 regularizers of layers, by this.",
)
@_training(
    "--decay-speedup",
    type=_SCALE,
    metavar="FACTOR",
    help="Let the learning rate of the compiled optimizer decay this many times as fast.",
)
@_training(
    *("--rate", "rates"),
    type=Rate(),
    multiple=True,
    metavar="GLOB=FACTOR",
    help="Multiply the learning rate by this for the layers whose path matches. Repeatable, the first match wins.",
)
@_training(
    "--decay-exclude",
    multiple=True,
    metavar="KIND|GLOB",
    help="Leave normalization, bias, or the layers whose path matches, out of weight decay. Repeatable.",
)
@_training("--l2", type=_SCALE, metavar="STRENGTH", help="Give L2 of this strength to kernels without a regularizer.")
@_training(
    *("--freeze", "frozen"),
    multiple=True,
    metavar="GLOB",
    help="Freeze the BN whose path matches, last of all, for fine-tuning. Repeatable.",
)
@_training(
    *("--freeze-statistics", "frozen_statistics"),
    multiple=True,
    metavar="GLOB",
    help="The same for the statistics alone: gamma and beta are trained.",
)
@_output(
    *("-o", "--output", "outputs"),
    type=_PATH,
    multiple=True,
    callback=_read_outputs,
    metavar="OUT",
    help="Where to write: .keras, .onnx, .tflite, .xml (OpenVINO), or a folder for a SavedModel. Repeatable.",
)
@_output(
    *("--format", "formats"),
    type=click.Choice(FORMATS),
    multiple=True,
    help="Take OUT for a folder, and write each MODEL into it, by its own name, in this format. Repeatable.  "
    "[default with several MODELs: keras]",
)
@_output(
    "--fold/--no-fold",
    default=None,
    help="Fold BN, inserted or there before, into other layers in what is written.  [default: fold, but not in .keras]",
)
@_output(
    "--merge-branches/--no-merge-branches",
    default=True,
    show_default=True,
    help="Where BN is folded, make one layer of parallel linear branches (RepVGG and its kin).",
)
@_output(
    "--opset",
    type=click.IntRange(13, 18),
    default=17,
    show_default=True,
    metavar="NUMBER",
    help="The opset of ONNX files.",
)
@_output(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="Write folders as that model server wants them: a SavedModel for TensorFlow Serving, ONNX for Triton.",
)
@_output(
    "--quantize",
    type=click.Choice(["float16", "int8_dynamic", "int8"]),
    help="Write ONNX and LiteRT files with smaller numbers, in float16 OpenVINO's too. int8 measures the ranges of "
    "activations on the inputs of --calibrate, else of --data.",
)
@_output("--no-verify", is_flag=True, help="Skip the checks of what was written.")
@_output("--force", is_flag=True, help="Overwrite existing outputs.")
@_run(
    "--diagnose",
    is_flag=True,
    help="Tell what is wrong with the batch normalization of each MODEL, on the inputs of --data if given, and what to "
    "do about it. Nothing is rewritten, and nothing written but a --report.",
)
@_run("--dry-run", is_flag=True, help="Show the plan, and what each OUT would get, and write nothing.")
@_run(
    "--config",
    type=_PATH,
    callback=take_config,
    is_eager=True,
    expose_value=False,
    metavar="FILE",
    help='A TOML file with options: position = "after". Options given besides win over them.',
)
@_run(
    "--backend",
    type=click.Choice(["tensorflow", "jax", "torch"]),
    help="What Keras runs on. Under JAX and torch, .keras files alone are written.  [default: Keras's own]",
)
@_run(
    *("--report", "report_files"),
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="Write a report: a page to read offline (.html), or data (.json). Repeatable; with --dry-run, of the plan.",
)
@_run("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
@_run("-q", "--quiet", is_flag=True, help="Print errors only.")
@_run("-v", "--verbose", is_flag=True, help="Print the whole plan, and what TensorFlow has to say.")
@click.version_option(package_name="kerasbn", prog_name=NAME)
def command(models: tuple[Path, ...], outputs: tuple[Path, ...], *, average: bool, **options: Any) -> int:
    """Give each saved Keras MODEL batch normalization, and write it to each OUT.

    MODEL is a .keras or .h5 file, the folder of a SavedModel of Keras 2, or an architecture in JSON: with
    --weights, or TensorFlow.js's model.json. It is never touched. Every output is checked against it before it takes
    its place.

    With several MODELs, OUT is a folder. Each is tried; what fails is told in one line and leaves nothing, the others
    are written, and the exit status is the highest of them.
    """
    from kerasbn.cli.reporting import Reports

    report_files = options.pop("report_files")
    if options.pop("diagnose"):
        from kerasbn.cli.diagnosing import check_options, diagnosed

        check_options(click.get_current_context())
        return diagnosed(models, Reports(report_files, several=len(models) > 1), options)
    from kerasbn.cli.job import Job
    from kerasbn.cli.outputs import targets_of
    from kerasbn.cli.session import Session

    if not outputs and not options["dry_run"]:
        raise click.UsageError("Missing option '-o': where to write. '--dry-run' shows the plan without writing.")
    models, others = models[:1] if average else models, models[1:] if average else ()
    if average and options["calibrate"] is None:
        raise click.UsageError("'--average' needs '--calibrate': the mean has statistics that are to be measured.")
    targets = targets_of(models, outputs, options.pop("formats"), options.pop("layout"))
    settings = {name: options.pop(name) for name in _OF_REWRITE}
    of_session = {name: options.pop(name) for name in ("backend", "as_json", "quiet", "verbose")}
    job = Job(settings=settings, others=others, **options)
    return Session(job, targets, Reports(report_files, targets.several), **of_session).run()


def run() -> None:
    """The entry point: run the command, and turn what goes wrong into one line and an exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a path or a table that the terminal has no letters for
    sys.exit(_status())


def _status() -> int:
    try:
        with ended_by_signals():
            return int(command.main(prog_name=NAME, standalone_mode=False, color=_colours()) or DONE)
    except SystemExit as error:
        if error.code != 1:  # with that click and rich end where nothing reads what is printed
            raise
        return UNREAD
    except click.exceptions.Abort as error:
        terminated = isinstance(error.__context__, Terminated)
        return complain(
            f"{'terminated' if terminated else 'interrupted'}; nothing more was written.",
            TERMINATED if terminated else INTERRUPTED,
        )
    except click.ClickException as error:
        return complain(error.format_message(), BAD_INPUT)
    except Exception as error:
        return Failure.of(error, verbose=bool({"-v", "--verbose"} & set(sys.argv))).told()


def _colours() -> bool | None:
    """Whether the help has colours; `None` is where there is a terminal."""
    return False if os.environ.get("NO_COLOR") else True if os.environ.get("FORCE_COLOR") else None
