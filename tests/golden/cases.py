"""What is run: a table of cases, each a list of command lines in a folder of its own.

A command is written once, with the options of `fit` and its like by their own names; where a checkout no longer has
such an option, `--set` takes its place (`SETTINGS`). Where a whole command has other names, its spellings stand in a
tuple: the first that the checkout knows is run.
"""

from __future__ import annotations

from dataclasses import dataclass

SETTINGS = {
    "--hidden": "model.hidden={}",
    "--width": "model.width={}",
    "--activation": "model.activation={}",
    "--dropout": "model.dropout={}",
    "--likelihood": "model.likelihood={}",
    "--sigma": "model.sigma={}",
    "--prior": "model.prior={}",
    "--unguided": "model.guided=false",
    "--pseudo-classes": "model.pseudo_classes={}",
    "--sampled-elbo": "model.sampled_elbo=true",
    "--without": "model.without={}",
    "--autoencoder": "model.autoencoder=true",
    "--patch": "model.patch={}",
    "--batch-size": "training.batch_size={}",
    "--learning-rate": "training.learning_rate={}",
    "--schedule": "training.schedule={}",
    "--weight-decay": "training.weight_decay={}",
    "--beta": "training.beta={}",
    "--kl-warmup": "training.kl_warmup={}",
    "--free-bits": "training.free_bits={}",
    "--reduction": "training.reduction={}",
    "--guide-weight": "training.guide_weight={}",
    "--input-noise": "training.input_noise={}",
    "--binarise": "training.binarise=true",
    "--balance": "training.balance=true",
    "--validation": "training.validation={}",
    "--calibration": "training.calibration={}",
    "--patience": "training.patience={}",
    "--no-bf16": "training.bf16=false",
    "--threads": "training.threads={}",
    "--augment-warp": "training.augment_warp={}",
    "--augment-shift": "training.augment_shift={}",
    "--augment-rotate": "training.augment_rotate={}",
    "--augment-noise": "training.augment_noise={}",
    "--augment-flip": "training.augment_flip=true",
    "--steps": "denoiser.steps={}",
    "--from-scratch": "denoiser.from_scratch=true",
    "--no-gate": "restore.gate=false",
    "--samples": "restore.samples={}",
    "--jpeg": "outputs.jpeg={}",
    "--lossless": "outputs.lossless=true",
    "--ocr-language": "outputs.ocr_language={}",
    "--jobs": "run.jobs={}",
    "--parts": "export.parts=true",
    "--fp16": "export.fp16=true",
    "--pixels": "export.pixels={}",
    "--fpr": "export.fpr={}",
    "--limit": "benchmark.limit={}",
    "--fit": "benchmark.fits={}",
    "--no-baselines": "benchmark.baselines=false",
}
"""Options and the settings that they set, where a checkout reaches these by `--set` alone."""


@dataclass(frozen=True)
class Step:
    """A command line in its spellings, or `flip FILE`, which changes one byte of a file.

    With `until` the command is interrupted, as by Ctrl-C, once that file is there.
    """

    spellings: tuple[str, ...]
    until: str = ""
    stdin: str = ""


@dataclass(frozen=True)
class Case:
    """Steps in one folder, with copies of what `given` names: the path there, and `corpus/...` or `CASE/...`."""

    name: str
    steps: tuple[Step, ...]
    given: tuple[tuple[str, str], ...] = ()

    @property
    def needs(self) -> set[str]:
        """The cases of which it takes files."""
        return {source.split("/")[0] for _, source in self.given} - {"corpus"}


def case(name: str, *steps: str | tuple[str, ...] | Step, **given: str) -> Case:
    """A case; a keyword is the name of what is given with `_` for `.`, its value where that is taken from."""
    made = [step if isinstance(step, Step) else Step((step,) if isinstance(step, str) else step) for step in steps]
    return Case(name, tuple(made), tuple((key.replace("_", "."), source) for key, source in given.items()))


RUN = "fit-digits/run"
DIGITS = "unpack/digits"
PARTS = "corpus/parts"
VERBS = (
    *("fit", "tune", "score", "evaluate", "reconstruct", "sample", "interpolate", "embed", "manifold", "traverse"),
    *("denoise", "export", "verify", "unpack", "benchmark", "report", "doctor"),
)
ADAPT = ("fit-denoiser --adapt grain", "fit --adapt grain")
PAIRS = ("fit-denoiser --noisy noisy --clean clean", "fit --noisy noisy --clean clean")


def both(spellings: tuple[str, ...], more: str) -> tuple[str, ...]:
    """Each spelling with `more` behind it."""
    return tuple(f"{spelling} {more}" for spelling in spellings)


CASES = (
    case("help", "--help", "--version", "", *(f"{verb} --help" for verb in VERBS), ("fit --help-all", "fit --help")),
    # Named sets and files
    case("unpack", "unpack digits --split test -o digits", "unpack parts.npz -o fromnpz --json", "unpack parts.npy",
         "unpack idx -o fromidx", "unpack ./digits", "unpack nosuch", "unpack digits -o digits",
         parts_npz="corpus/parts.npz", parts_npy="corpus/parts.npy", idx="corpus/idx"),
    # Fits
    case("fit-digits", "fit digits --normal-classes 0-8 --epochs 6 --hidden 64 --latent 8 -o run",
         "fit digits --normal-classes 0-8 --epochs 6 -o run"),
    case("fit-bare", "fit --normal-classes 0-8 --epochs 1 --hidden 16 --pseudo-classes 0", "score digits", "evaluate",
         "reconstruct", "embed", "report --no-open", digits=DIGITS),
    case("fit-conv", "fit parts --normal-classes good --model conv --width 4 --latent 4 --epochs 2 -o run --json",
         parts=PARTS),
    case("fit-patches", "fit parts --normal-classes good --preset patches --epochs 1 -o run", parts=PARTS),
    case("fit-preset", "fit digits --preset mlp-128-2 --epochs 2 -o run"),
    case("fit-colour", "fit colour --size 16x24 --channels 3 --model mlp --hidden 8 --epochs 1 -o run",
         "fit colour --size 8 --channels 1 --model mlp --hidden 8 --epochs 1 -o grey", colour="corpus/colour"),
    case("fit-settings",
         "fit digits --normal-classes 0,2-4 --epochs 3 --hidden 32,16 --latent 4 --activation gelu --dropout 0.1"
         " --likelihood gaussian-pixel --prior per-class --pseudo-classes 20 --schedule constant --beta 0.5"
         " --kl-warmup 1 --free-bits 0.1 --augment-shift 1 --augment-flip --augment-rotate 5 --augment-noise 0.02"
         " --augment-warp 0.5 --balance --input-noise 0.1 --batch-size 64 --weight-decay 0.01 --seed 3 --threads 1"
         " --no-bf16 --validation 0.2 --calibration 0.2 --patience 2 --guide-weight 5 --learning-rate 0.002"
         " --device cpu -o run"),
    case("fit-autoencoder", "fit digits --normal-classes 0-4 --epochs 2 --hidden 16 --autoencoder --unguided"
         " --pseudo-classes 0 --likelihood continuous-bernoulli --reduction mean -o run"),
    case("fit-binary", "fit digits --normal-classes 1 --epochs 2 --hidden 16 --binarise --sampled-elbo"
         " --without hidden_error,hidden_distance -o run"),
    case("fit-table", "fit table.npz --normal-classes 0 --epochs 3 --latent 2 -o run",
         "fit table.npy --epochs 2 -o rows", "fit whole.npy", "fit table.npz --size 8",
         "evaluate table.npz --normal-classes 0 -m run -o report", "embed table.npz -m run -o latents.csv",
         "score table.npz -m run -o scores.csv --no-report", "reconstruct table.npz -m run",
         "export -m run -o model.onnx", "score table.npz -m model.onnx -o onnx.csv",
         table_npz="corpus/table.npz", table_npy="corpus/table.npy", whole_npy="corpus/whole.npy"),
    case("fit-packed", *(f"fit {data} --epochs 1 --model mlp --hidden 8 --pseudo-classes 0 -o run-{number}"
                         for number, data in enumerate(("parts.tar", "parts.parquet", "parts.npy", "idx"))),
         "fit parts.npz --normal-classes 1 --epochs 1 --model mlp --hidden 8 --pseudo-classes 0 -o run-npz",
         parts_tar="corpus/parts.tar", parts_parquet="corpus/parts.parquet", parts_npy="corpus/parts.npy",
         parts_npz="corpus/parts.npz", idx="corpus/idx"),
    case("fit-groups", "fit parts --groups groups.csv --epochs 1 --model mlp --hidden 8 --pseudo-classes 0 -o run",
         "fit digits --groups groups.csv -o other", "fit parts --groups none.csv -o other",
         parts=PARTS, groups_csv="corpus/groups.csv"),
    case("fit-spec", "fit digits --normal-classes 0-8 --spec small.toml --latent 3 -o run",
         "fit digits --spec misspelled.toml", small_toml="corpus/small.toml",
         misspelled_toml="corpus/misspelled.toml"),
    case("fit-damaged", "fit damaged --epochs 1 --model mlp --hidden 8 --pseudo-classes 0 -o run",
         damaged="corpus/damaged"),
    case("fit-resumed",
         Step(("fit digits --normal-classes 0-8 --model conv --width 4 --threads 1 --epochs 12 -o run",),
              until="run/checkpoint.safetensors"),
         "fit digits --normal-classes 0-8 --model conv --width 4 --threads 1 --epochs 12 -o run --resume",
         "fit digits --resume", "fit digits --epochs 1 --hidden 8 --pseudo-classes 0 -o fresh --resume"),
    case("fit-wrong", "fit empty", "fit nodata", "fit digits --normal-classes 0-12", "fit digits --normal-classes ''",
         "fit digits --learning-rate -1", "fit digits --epochs many", "fit digits --epochs 0",
         "fit digits --hidden 4,x",
         "fit digits --dropout 2", "fit digits --likelihood cauchy", "fit digits --size x", "fit digits --latent 0",
         "fit digits --preset none", "fit mnist", "fit digits --device cuda", "fit digits --seed -1",
         "fit digits --model tree", "fit digits --no-such", "fit digits --patch 64", "fit digits --latnet 3",
         "fit parts --channels 2", empty="corpus/empty", parts=PARTS),
    # Scores
    case("score", "score digits -m run -o scores.csv", "score digits -m run -o scores.csv",
         "score digits -m run -o scores.parquet --fpr 0.2", "score digits -m run -o scores.jsonl --json",
         "score digits -m run/model.safetensors -o flagged.csv --no-report --heatmaps maps",
         "score digits -m model.onnx -o onnx.csv", "score digits -m model.onnx -o onnx.jsonl --json --heatmaps drawn",
         "score digits/9 digits/*/*0.png -m run -o some.csv",
         Step(("score - -m run -o listed.csv", "score --files-from - -m run -o listed.csv"),
              stdin="digits/9/missing.png\ndigits/9\n"),
         run=RUN, digits=DIGITS, model_onnx="export/model.onnx"),
    case("score-packed", *(f"score {data} -m run -o {data}.csv --no-report" for data in
                           ("parts.tar", "parts.parquet", "parts.npy", "parts.npz", "idx")),
         "score parts -m run -o parts.csv --heatmaps maps", "score parts -m patches -o patches.csv --heatmaps small",
         run="fit-conv/run", patches="fit-patches/run", parts=PARTS, parts_tar="corpus/parts.tar", idx="corpus/idx",
         parts_parquet="corpus/parts.parquet", parts_npy="corpus/parts.npy", parts_npz="corpus/parts.npz"),
    case("score-damaged", "score damaged -m run -o bad.csv", "score damaged -m run -o bad.jsonl --json",
         "score damaged -m run -o bad.parquet --no-report", run="fit-conv/run", damaged="corpus/damaged"),
    case("score-watch", Step(("watch digits -m run -o scores.csv", "score digits --watch -m run -o scores.csv"),
                             until="scores.csv"),
         ("watch digits -m run --json -o x.csv", "score digits -m run --watch --json -o x.csv"),
         run=RUN, digits="unpack/digits/9"),
    case("score-wrong", "score empty -m run", "score missing -m run", "score digits", "score digits -m nowhere",
         "score digits -m nowhere.onnx", "score digits -m small.toml", "score digits -m run -o scores.xlsx",
         "score digits -m run --fpr 1.5", "score digits -m run --fpr 0", "score digits -m run --no-such",
         "score digits -m run --jsno", "score -m run", "score *.tif -m run", "scor digits", "nonsense",
         "score digits -m run --device cuda", "score digits -m run --heatmaps digits", "score table.npz -m run",
         "score digits -m own", "flip run/model.safetensors", "score digits -m run",
         "flip model.onnx", "score digits -m model.onnx",
         run=RUN, digits=DIGITS, empty="corpus/empty", small_toml="corpus/small.toml", table_npz="corpus/table.npz",
         model_onnx="export/model.onnx", own="denoiser-adapt/own"),
    # Evaluations
    case("evaluate", "evaluate -m run -o named", "evaluate digits -m run -o folder --json",
         "evaluate ./digits -m run -o files --fpr 0.2", "evaluate ./digits -m model.onnx -o onnx",
         "evaluate digits --normal-classes 0-7 -m run -o fewer", "evaluate digits --normal-classes 0-9 -m run",
         "evaluate nosuch -m run", "evaluate flat -m run", "evaluate digits -m run --fpr 2",
         run=RUN, digits=DIGITS, flat="corpus/colour", model_onnx="export/model.onnx"),
    case("evaluate-masks", "evaluate parts -m run -o conv --masks masks", "evaluate parts -m patches -o patches"
         " --masks masks --json", "evaluate parts -m run --masks nowhere",
         run="fit-conv/run", patches="fit-patches/run", parts=PARTS, masks="corpus/masks"),
    case("likelihood", *(
             (f"likelihood {data} --samples {samples} --images {images} {more}",
              f"evaluate --generative {data} --importance-samples {samples} --bound-images {images} {more}")
             for data, samples, images, more in (("-m run", 3, 5, "-o report"), ("-m run", 2, 4, "-o again --json"),
                                                 ("./digits -m classes", 2, 4, "-o drawn"))),
         ("likelihood -m model.onnx", "evaluate --generative -m model.onnx"),
         run=RUN, digits=DIGITS, classes="fit-settings/run", model_onnx="export/model.onnx"),
    # Exported models
    case("export", "export -m run -o model.onnx", "verify model.onnx -m run", "verify model.onnx -m run --json",
         "export -m run -o parts.onnx --parts --triton served --pixels float32 --fpr 0.2 --json",
         "export -m run -o half.onnx --fp16", "verify model.onnx -m run --tolerance 1e-12",
         "export -m model.onnx -o again.onnx", "export -m nowhere",
         "export -m run -o model.txt", run=RUN),
    case("export-conv", "export -m conv -o conv.onnx --json", "export -m patches -o patches.onnx",
         "verify conv.onnx -m conv --json", "export -m own -o own.onnx", "verify own.onnx -m own",
         conv="fit-conv/run", patches="fit-patches/run", own="denoiser-pairs/own"),
    # Looking inside
    case("look", "reconstruct -m run -n 2", "reconstruct digits -m run --by recon_error -n 2 --json -o by.png",
         "reconstruct ./digits -m model.onnx -n 1 -o onnx.png", "reconstruct digits -m run --by nothing",
         "sample -m run -n 9", "sample -m run -n 4 --seed 1 --temperature 0.5 -o cool.png --json",
         "sample -m run -n 4 --aggregate -o aggregate.png", "sample -m classes -n 4 --class 3 -o three.png",
         "sample -m run --class 3", "sample -m classes --class 9", "sample -m model.onnx", "sample -m run -o x.jpg",
         "interpolate digits/0/*0.png digits/1/*0.png -m run",
         "interpolate digits/0/00000.png digits/1/00001.png -m run --steps 4 --json",
         "interpolate parts/good/00.png parts/good/01.png parts/good/02.png parts/crack/00.png -m conv --steps 3"
         " --spherical -o square.png", "interpolate parts/good/00.png parts/good/01.png -m conv --steps 5 -o line.png",
         "traverse -m run", "traverse -m run --json -o again.png", "traverse -m model.onnx",
         "manifold -m plane -n 5", "manifold -m plane -n 3 --json -o small.png", "manifold -m run",
         run=RUN, digits=DIGITS, classes="fit-settings/run", plane="fit-preset/run", model_onnx="export/model.onnx",
         conv="fit-conv/run", parts=PARTS),
    case("embed", "embed digits -m run", "embed ./digits -m run -o latents.csv --plot pca --json",
         "embed digits -m plane --split train -o plane.jsonl --plot pca", "embed ./digits -m model.onnx -o onnx.csv",
         "embed parts -m conv -o conv.csv --plot tsne", "embed digits -m run -o x.txt",
         "embed digits -m run -o groups.csv",
         run=RUN, digits=DIGITS, plane="fit-preset/run", model_onnx="export/model.onnx", conv="fit-conv/run",
         parts=PARTS, groups_csv="corpus/groups.csv"),
    # Scans
    case("denoise", "denoise scans --dry-run", "denoise scans --dry-run --json", "denoise scans", "denoise scans",
         ("check scans-clean", "denoise scans-clean --check"), ("undo scans-clean", "denoise scans-clean --undo"),
         scans="corpus/scans"),
    case("denoise-residual", "denoise scans -o clean --residual --uncertainty --json --jobs 1",
         ("check clean --json", "denoise clean --check --json"), ("undo clean", "denoise clean --undo"),
         ("undo clean -o back --json", "denoise clean --undo -o back --json"), "flip clean/page.png",
         ("check clean", "denoise clean --check"), ("undo clean -o again", "denoise clean --undo -o again"),
         scans="corpus/scans"),
    case("denoise-derived", "denoise scans -o clean --derive bilevel --derive deskewed --json --jobs 1",
         "check clean --json", scans="corpus/scans"),
    case("denoise-kinds", "denoise scans -o photo --kind photo --noise 10 --strength 0.5 --no-gate --no-report",
         "denoise scans -o white --kind document --paper white", "denoise scans -o asis --paper as-is --jpeg 90",
         "denoise photos -o photos-kept --lossless", "denoise photos/0.jpg scans/page.png -o two --json",
         scans="corpus/scans", photos="corpus/photos"),
    case("denoise-ocr", "denoise scans/page.png -o read --ocr", "denoise scans/page.png -o lang --ocr"
         " --ocr-language xyz", scans="corpus/scans"),
    case("denoise-damaged", "denoise broken", "denoise broken --dry-run", "denoise broken -o again --json",
         broken="corpus/broken"),
    case("denoise-own", "denoise photos -m own -o adapted --kind photo", "denoise photos -m own -o sampled --kind photo"
         " --samples 2 --json", "denoise scans/page.png -m pairs -o paired",
         "denoise scans/page.png -m own.onnx -o onnx",
         "denoise digits -m run -o digits-clean --json", "denoise digits -m model.onnx -o onnx-clean",
         photos="corpus/photos", scans="corpus/scans", own="denoiser-adapt/own", pairs="denoiser-pairs/own",
         own_onnx="export-conv/own.onnx", run=RUN, digits="unpack/digits/9", model_onnx="export/model.onnx"),
    case("denoise-wrong", "denoise scans -o scans/in", "denoise nowhere", "denoise scans --strength 2",
         "denoise scans --jpeg 200", "denoise scans --jpeg 90 --lossless", "denoise scans -m scans/page.png",
         "denoise scans --device tensorrt", "denoise scans --noise -1", "denoise scans --kind scan",
         ("undo scans", "denoise scans --undo"), ("check scans", "denoise scans --check"),
         ("undo nowhere", "denoise nowhere --undo"), "denoise", "denoise empty",
         scans="corpus/scans", empty="corpus/empty"),
    case("denoiser-adapt", both(ADAPT, "--steps 1 -o own --json"), both(ADAPT, "-o own"), grain="corpus/grain"),
    case("denoiser-pairs", both(PAIRS, "--steps 1 -o own"),
         noisy="corpus/noisy", clean="corpus/clean"),
    case("denoiser-degrade", both(("fit-denoiser clean", "fit clean"),
                                  "--degrade gaussian:25 --steps 1 --from-scratch -o own"), clean="corpus/clean"),
    case("denoiser-wrong", *(both(("fit-denoiser", "fit"), more) for more in
                             ("--noisy noisy", "--adapt nowhere", "--adapt grain --steps 0", "--adapt grain --resume",
                              "digits --degrade photo", "noisy --degrade rain",
                              "noisy --adapt grain", "--adapt grain --epochs 3")),
         noisy="corpus/noisy", grain="corpus/grain"),
    # Searches, benchmarks, reports
    case("tune", "tune digits --normal-classes 0-8 --spec small.toml --trials 2 -o search",
         "tune digits --normal-classes 0-8 --spec small.toml --trials 2 -o search --json",
         "tune digits --normal-classes 0-7 --spec small.toml --trials 2 -o search", "tune digits --time soon",
         "tune digits --trials 0", "tune nosuch", small_toml="corpus/small.toml"),
    case("benchmark", *(
             ((f"benchmark {more} --set model.hidden=16 --set model.latent=4 --set model.pseudo_classes=0"
              " --set training.epochs=2"),
              f"benchmark {more} --spec small.toml") for more in
             ("one-class --data digits --classes 9 --seeds 1 --limit 300 -o report",
              "one-class --data digits --classes 9 --seeds 1 --limit 300 -o report --json",
              "one-class-out --data digits --classes 1 --seeds 1 --limit 200 --no-baselines --fit unlabelled")),
         "benchmark one-class --fit guided", "benchmark tables -o t", "benchmark nosuch",
         "benchmark ood --data mnist:nosuch", small_toml="corpus/small.toml"),
    case("report", "report run --no-open", "report run --no-open --json", "report evaluation/report.json --no-open",
         "report scores.csv --no-open", "report clean --no-open", "report search --no-open",
         "report measured --no-open",
         ("compare run other -o two", "report run other --compare -o two"),
         ("compare run other --json", "report run other --compare --json"),
         ("compare run evaluation", "report run evaluation --compare"), "report nowhere --no-open", "report run other",
         run=RUN, other="fit-preset/run", evaluation="evaluate/named", scores_csv="score/scores.csv",
         scores_csv_report_json="score/scores.csv.report.json", clean="denoise/scans-clean", search="tune/search",
         measured="benchmark/report"),
    case("doctor", "doctor --json", "doctor --data-dir nowhere"),
)  # fmt: skip
