"""What people of other tools type, and what it is called here."""

import difflib
from collections.abc import Collection

# What to say → what is typed, without dashes. The first word is an option that the subcommand must have, or none.
_ALIASES = {
    "--lr": "learning-rate max-lr lr-max base-lr peak-lr init-lr initial-lr eta blr",
    "--weight-decay": "wd decay l2",
    "--batch-size": "bs b batch train-batch-size per-device-train-batch-size mini-batch-size",
    "--epochs": "epoch e ep num-epochs n-epochs num-train-epochs max-epochs nb-epochs",
    "--param temperature=X": "temperature temp tau kd-t kd-temperature distillation-tau t",
    "--label-weight W, of the labels, or --weight TERM=W, of a term of the method": "alpha kd-alpha lambda "
    "kd-weight distillation-alpha soft-weight kd-ratio beta gamma loss-weight ce-weight hard-weight",
    "--precision bf16 or --precision fp16": "amp fp16 bf16 half mixed-precision autocast use-amp amp-dtype apex dtype",
    "--student-option pretrained=true, --teacher-option pretrained=true": "pretrained student-pretrained",
    "--teacher-option pretrained=true": "teacher-pretrained pretrained-teacher",
    "--option pretrained=true": "pretrained",
    "--workers": "num-workers n-workers nworkers j dataloader-num-workers num-threads-data cpus",
    "--device cuda": "gpu gpus gpu-id gpu-ids cuda use-gpu use-cuda n-gpu ngpu num-gpus accelerator devices",
    "--device cpu": "cpu no-cuda no-gpu",
    "--data": "dataset data-set dataset-name ds task",
    "--data folder:PATH": "data-path data-root root train-dir train-data val-dir image-folder images imagenet",
    "--student": "arch a model model-name net network backbone student-model student-arch student-name s-model",
    "--model": "arch a net network backbone model-name run",
    "--teacher": "teacher-model teacher-arch teacher-name t-model",
    "--student-weights FILE, or --student FILE to go on from it": "weights checkpoint ckpt load load-from "
    "init-checkpoint initial-checkpoint finetune pretrained-weights model-path",
    "--weights FILE": "checkpoint ckpt load load-from model-path",
    "--teacher-weights FILE": "teacher-checkpoint teacher-ckpt teacher-path path-t teacher-resume",
    "--method": "loss distill distillation distillation-type kd-method algorithm distiller criterion kd-loss kd",
    "--optimizer": "opt optim solver optimiser",
    "--schedule": "sched scheduler lr-scheduler lr-schedule lr-scheduler-type lr-policy",
    "--warmup SHARE, of the steps": "warmup-epochs warmup-steps warmup-ratio warmup-iters lr-warmup-epochs",
    "--label-smoothing": "smoothing ls",
    "--image-size": "img-size input-size imgsz img resolution crop-size train-crop-size image-res size",
    "--validation N": "val val-split validation-split split val-size val-ratio valid-size",
    "--seed": "random-seed manual-seed s random-state",
    "--augmentation": "aug augment augmentations auto-augment data-augmentation transform transforms hflip",
    "--ema": "model-ema ema-decay model-ema-decay",
    "--wandb PROJECT": "use-wandb log-wandb wandb-project",
    "--tensorboard": "tb log-tensorboard",
    "--compile on": "torchcompile torch-compile jit",
    "--out": "output-dir output o outdir out-dir save-dir save-path logdir log-dir exp-name name save experiment "
    "run-name model-dir checkpoint-dir workdir work-dir run-dir project output-path dest",
    "--macs SHARE, --params SHARE or --latency SHARE": "ratio amount prune-ratio pruning-ratio keep flops speed-up",
    "--to": "bits dtype qtype quantize-to weight-bits int8 int4 format precision half fp16",
    "--top": "topk top-k k",
    "model-compression resume RUN, which continues an interrupted run": "resume continue resume-from "
    "resume-from-checkpoint auto-resume",
    "--device cuda: a run uses one device": "distributed world-size ddp local-rank multi-gpu nproc-per-node dist-url",
    "--out with another folder: nothing is overwritten": "force overwrite exist-ok f",
    "model-compression doctor, which looks at all before a run": "dry-run check",
}


def hint(typed: str, known: Collection[str], command: str) -> str:
    """ "did you mean …?" for an option that a subcommand does not have, or where its help is."""
    option = "--" + typed.partition("=")[0].lstrip("-").replace("_", "-").lower()
    if option in known:
        return f"did you mean {option}?"
    for meant, aliases in _ALIASES.items():
        first = meant.split()[0].rstrip(",:")
        if option[2:] in aliases.split() and (first in known or not first.startswith("--")):
            return f"did you mean {meant}?"
    near = difflib.get_close_matches(option, known, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"see {command} --help"
