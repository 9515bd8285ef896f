"""Lethe's own method and the field's as plain loops, in the manner of `loops`: what the recipes are held against.

Written from the papers (`lethe` from a prototype loop that was measured on CIFAR-10), not from the engine. Every loop trains `model` in
place, from the original's weights; a number that a loop does not name is in `Numbers`."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice, zip_longest

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy, kl_div, smooth_l1_loss
from torch.optim import SGD, Adam, Optimizer

from support.loops import Numbers, begin, cosine, train_only

Own = Callable[[Module], Optimizer]  # builds the optimizer of steps on forget alone (DualOptim)
Batch = tuple[Tensor, Tensor, Tensor]  # images normalised, labels, indices into all images


@dataclass
class Source:
    """images float32 [N, 3, H, W], normalised; labels int64 [N]; forget, retain, shaping: indices.

    `batches(split, k, augmented)`: of pass k over a split, for augmented one of "", "flip", "crop,flip"; `small(k)` gives forget's
    batches of another size. `seed_epoch(e)` seeds torch's generator as it is seeded for epoch e of the run."""

    images: Tensor
    labels: Tensor
    forget: Tensor
    retain: Tensor
    shaping: Tensor
    batches: Callable[[str, int, str], Iterable[Batch]]
    small: Callable[[int], Iterable[Batch]]
    drawn: Callable[[int, Tensor], Iterable[Batch]]  # of pass k over retain, by weights of all images
    seed_epoch: Callable[[int], object]
    fresh: Module  # a randomly initialised network
    mean: Tensor
    std: Tensor
    second_view: Callable[[Tensor], Tensor]  # of images by index, drawn by torch's generator
    size: int  # of a batch
    small_size: int

    def endless(self, split: str, number: Iterator[int], augmented: str = "") -> Iterator[Batch]:
        return chain.from_iterable(self.batches(split, k, augmented) for k in number)

    @property
    def length(self) -> int:
        return len(list(self.batches("retain", 0, "")))


def descend(optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def rate(optimizer: SGD, lr: float, warmup: float, u: float) -> None:
    """Linear warm-up, then cosine to 0; u: the share of the run that is done."""
    share = u / warmup if u < warmup else 0.5 * (1 + math.cos(math.pi * (u - warmup) / (1 - warmup)))
    optimizer.param_groups[0]["lr"] = lr * share


def ft(model: Module, data: Source, sgd: Numbers, retain_epochs: float, crop_share: float, warmup: float) -> None:
    optimizer, number = begin(model, sgd), count()
    for start, stop, augmented in ((0.0, crop_share, "crop,flip"), (crop_share, 1.0, "flip")):
        passes = retain_epochs * (stop - start)
        epochs = max(1, round(passes))
        steps = max(1, round(passes / epochs * data.length))
        for epoch in range(epochs):
            for i, (images, labels, _) in enumerate(islice(data.endless("retain", number, augmented), steps)):
                rate(optimizer, sgd.lr, warmup, start + (epoch + i / steps) / epochs * (stop - start))
                descend(optimizer, cross_entropy(model(images), labels))


def negation(model: Module, data: Source, sgd: Numbers, retain_epochs: float, crop_share: float, warmup: float) -> None:
    with torch.no_grad():
        next(parameter for parameter in model.parameters() if parameter.ndim == 4).mul_(-1)
    ft(model, data, sgd, retain_epochs, crop_share, warmup)


def targets(model: Module, data: Source, cap: float, pull_on: str) -> tuple[Tensor, float, float]:
    """By index into all images: the loss that each forget image should have at least; what log odds are divided by; and how far forget's
    mean is from that of its targets."""
    model.eval()
    with torch.no_grad():
        losses = cross_entropy(model(data.images), data.labels, reduction="none")
    model.train()
    odds = losses.clamp(min=1e-7).expm1().log()
    ordered = odds if pull_on == "scaled_log_odds" else losses
    wanted = torch.zeros_like(losses)
    for label in data.labels[data.forget].unique():
        own, unseen = (index[data.labels[index] == label] for index in (data.forget, data.shaping))
        unseen = unseen if len(unseen) else data.shaping
        rank = losses[own].argsort().argsort().float()
        inner = pull_on == "scaled_log_odds" or len(own) == 1
        wanted[own] = torch.quantile(ordered[unseen], (rank + 0.5) / len(own) if inner else rank / (len(own) - 1))
    if pull_on == "scaled_log_odds":
        wanted[data.forget] = torch.log(1 + wanted[data.forget].exp())
    wanted = wanted.clamp(max=cap)
    if pull_on == "loss":
        return wanted, 1.0, float((wanted - losses)[data.forget].mean())
    scale = max(float(odds[data.shaping].std(unbiased=False)), 0.1) if pull_on == "scaled_log_odds" else 1.0
    return wanted, scale, float((wanted.clamp(min=1e-7).expm1().log() - odds)[data.forget].mean()) / scale


def lethe(
    model: Module,
    data: Source,
    sgd: Numbers,
    retain_epochs: float,
    weight: float,
    pull_from: float,
    crop_share: float,
    renew_every: float,
    cap: float,
    focus: float,
    warmup: float,
    pull_on: str = "loss",
    fade: float = 0.0,
    reinit: tuple[str, ...] = (),
    reinit_share: float = 1.0,
) -> None:
    if reinit:
        assert tuple(reinit) == ("head",)
        fresh = data.fresh.state_dict()
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if name.startswith("fc."):
                    value.copy_(value + reinit_share * (fresh[name] - value))
    optimizer, retain_pass, forget_pass = begin(model, sgd), count(), count()
    seen = torch.ones(len(data.labels))
    for start, stop in ((0.0, pull_from), (pull_from, crop_share), (crop_share, 1.0)):
        if start == stop:
            continue
        pulls, crops = start >= pull_from, start < crop_share
        passes = retain_epochs * (stop - start)
        epochs = max(1, round((stop - start) / renew_every)) if pulls else max(1, round(passes))
        steps = max(1, round(passes / epochs * data.length))
        for epoch in range(epochs):
            if pulls:
                wanted, scale, left = targets(model, data, cap, pull_on)
                share = min(max(left / fade, 0.0), 1.0) if fade else 1.0
                if pull_on == "scaled_log_odds":
                    share *= min(1.0, (len(data.forget) / len(data.retain)) ** (1 / 3))
                forget = chain.from_iterable(map(data.small, forget_pass))
            retain: Iterator[Batch]
            if focus and not crops:  # by the last loss that a step has seen, from the mean of its distribution if none has
                retain = chain.from_iterable(data.drawn(k, focus + seen.clamp(max=3)) for k in retain_pass)
            else:
                retain = data.endless("retain", retain_pass, "crop,flip" if crops else "")
            for i, (images, labels, index) in enumerate(islice(retain, steps)):
                u = start + (epoch + i / steps) / epochs * (stop - start)
                rate(optimizer, sgd.lr, warmup, u)
                if pulls:
                    more, true, own = next(forget)
                    logits, logits_forget = model(torch.cat([images, more])).split([len(labels), len(true)])
                    each, goal = cross_entropy(logits_forget, true, reduction="none"), wanted[own]
                    if pull_on != "loss":
                        right = logits_forget.double().softmax(1)[torch.arange(len(true)), true]
                        each, goal = torch.log((1 - right) / right).float(), torch.log(goal.clamp(min=1e-7).expm1())
                    if pull_on == "scaled_log_odds":
                        each, goal = each / scale, goal / scale
                    pull = smooth_l1_loss(torch.minimum(each, goal), goal, beta=0.5)
                    loss = cross_entropy(logits, labels) + weight * ((u - pull_from) / (1 - pull_from)) ** 0.5 * share * pull
                else:
                    logits = model(images)
                    loss = cross_entropy(logits, labels)
                seen[index] = cross_entropy(logits.detach(), labels, reduction="none")
                descend(optimizer, loss)


def neggrad_plus(model: Module, data: Source, sgd: Numbers, epochs: int, retain_share: float, ascent_limit: float) -> None:
    optimizer, passes = begin(model, sgd), {"retain": count(), "forget": count()}
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        lengths = {split: len(list(data.batches(split, 0, ""))) for split in passes}
        streams = [data.endless(split, number) for split, number in passes.items()]
        for (images, labels, _), (more, true, _) in islice(zip(*streams, strict=True), max(lengths.values())):
            retain = retain_share * cross_entropy(model(images), labels)
            each = cross_entropy(model(more), true, reduction="none")
            descend(optimizer, retain - (1 - retain_share) * (each.clamp(max=ascent_limit) if ascent_limit else each).mean())


def l1_sparse(model: Module, data: Source, sgd: Numbers, epochs: int, l1_weight: float) -> None:
    optimizer = begin(model, sgd)
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        for images, labels, _ in data.batches("retain", epoch, ""):
            norm = torch.stack([parameter.abs().sum() for parameter in moving]).sum()
            descend(optimizer, cross_entropy(model(images), labels) + norm * (l1_weight * (1 - epoch / epochs)))


def random_label(model: Module, data: Source, sgd: Numbers, epochs: int, own: Own | None = None) -> None:
    salun(model, data, sgd, epochs, 1.0, own)


def salun(model: Module, data: Source, sgd: Numbers, epochs: int, saliency_share: float, own: Own | None = None) -> None:
    model.eval().requires_grad_(True)
    cross_entropy(model(data.images[data.forget]), data.labels[data.forget], reduction="sum").neg().backward()
    flat = torch.cat([parameter.grad.abs().flatten() for parameter in model.parameters()])  # type: ignore[union-attr]
    threshold = flat.sort(descending=True).values[round(saliency_share * len(flat)) - 1]
    masks = [parameter.grad.abs() >= threshold for parameter in model.parameters()]  # type: ignore[union-attr]
    start = copy.deepcopy(list(model.parameters()))
    model.zero_grad(set_to_none=True)
    optimizer = begin(model, sgd)
    steps_by = {"forget": own(model) if own else optimizer, "retain": optimizer}
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        data.seed_epoch(epoch)
        for split in ("forget", "retain"):
            for images, labels, _ in data.batches(split, epoch, ""):
                given = model(images)
                drawn = torch.randint(0, 10, labels.shape) if split == "forget" else labels
                descend(steps_by[split], cross_entropy(given, drawn))
                with torch.no_grad():
                    for parameter, mask, kept in zip(model.parameters(), masks, start, strict=True):
                        parameter[~mask] = kept[~mask]


def scrub(
    model: Module,
    data: Source,
    sgd: Numbers,
    epochs: int,
    forget_epochs: int,
    temperature: float,
    ce_weight: float,
    distillation_weight: float,
    end_at: str,
    own: Own | None = None,
) -> None:
    teacher = copy.deepcopy(model).eval()

    def divergence(images: Tensor, given: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = (teacher(images) / temperature).log_softmax(1)
        return kl_div((given / temperature).log_softmax(1), wanted, log_target=True, reduction="batchmean") * temperature**2

    def error(split: Tensor) -> float:
        model.eval()
        with torch.no_grad():
            wrong = (model(data.images[split]).argmax(1) != data.labels[split]).float().mean()
        model.train()
        return float(wrong)

    optimizer, kept = begin(model, sgd), list[tuple[float, dict[str, Tensor]]]()
    forget_steps = own(model) if own else optimizer
    for epoch in range(epochs):
        if epoch < forget_epochs:
            for images, _, _ in data.batches("forget", epoch, ""):
                descend(forget_steps, -divergence(images, model(images)))
        for images, labels, _ in data.batches("retain", epoch, ""):
            given = model(images)
            descend(optimizer, ce_weight * cross_entropy(given, labels) + distillation_weight * divergence(images, given))
        kept.append((error(data.forget), copy.deepcopy(model.state_dict())))
    if end_at == "unseen":
        wanted = error(data.shaping[torch.isin(data.labels[data.shaping], data.labels[data.forget])])
        model.load_state_dict(min(kept[::-1], key=lambda pair: abs(pair[0] - wanted))[1])


def cf_k(model: Module, data: Source, sgd: Numbers, epochs: int) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        for images, labels, _ in data.batches("retain", epoch, ""):
            descend(optimizer, cross_entropy(model(images), labels))


def eu_k(model: Module, data: Source, sgd: Numbers, epochs: int) -> None:
    fresh = data.fresh.state_dict()
    train_only(model, sgd.trains)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.split(".")[0] in sgd.trains:
                value.copy_(fresh[name])
    cf_k(model, data, sgd, epochs)


def sfr_on(
    model: Module,
    data: Source,
    sgd: Numbers,
    retain_epochs: float,
    forget_every: int,
    scale: float,
    threshold: float,
    forget_clip: float,
    own: Own | None = None,
) -> None:
    def fisher(split: Tensor) -> list[Tensor]:
        model.eval().requires_grad_(True)
        parts = split.split(128)
        total = [torch.zeros_like(parameter) for parameter in model.parameters()]
        for part in parts:
            loss = cross_entropy(model(data.images[part]), data.labels[part])
            for sums, gradient in zip(total, torch.autograd.grad(loss, list(model.parameters())), strict=True):
                sums += gradient**2 / len(parts)
        return total

    masks = [(f + 1e-15) / (r + 1e-15) >= threshold for f, r in zip(fisher(data.forget), fisher(data.retain), strict=True)]
    optimizer, retain_pass, forget_pass = begin(model, sgd), count(), count()
    epochs = max(1, round(retain_epochs))
    forget_steps = own(model) if own else optimizer
    for epoch in range(epochs):
        retain, forget = data.endless("retain", retain_pass), data.endless("forget", forget_pass)
        whole = data.length + -(-data.length // forget_every)
        word = [letter for i in range(data.length) for letter in (["F", "R"] if i % forget_every == 0 else ["R"])] * 2
        total = max(1, round(retain_epochs / epochs * whole))
        for i, letter in enumerate(word[:total]):
            u = (epoch + i / total) / epochs
            rate(optimizer, sgd.lr, 0.0, u)
            images, labels, _ = next(forget if letter == "F" else retain)
            if letter == "R":
                descend(optimizer, cross_entropy(model(images), labels))
                continue
            each = cross_entropy(model(images), labels, reduction="none")
            weight = each.detach() ** -0.5
            optimizer.zero_grad(set_to_none=True)
            (scale * 0.5 * (1 + math.cos(math.pi * u)) * (each * weight / weight.sum()).sum()).backward()
            for parameter, mask in zip(model.parameters(), masks, strict=True):
                if parameter.grad is not None:
                    parameter.grad[~mask] = 0
            torch.nn.utils.clip_grad_norm_(model.parameters(), forget_clip)
            forget_steps.step()


def munba(model: Module, data: Source, sgd: Numbers, epochs: int, joint_clip: float) -> None:
    optimizer = begin(model, sgd)
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        data.seed_epoch(epoch)
        for retain, forget in islice(zip_longest(data.batches("retain", epoch, ""), data.batches("forget", epoch, "")), data.length):
            optimizer.zero_grad(set_to_none=True)
            losses = [cross_entropy(model(retain[0]), retain[1])]
            if forget:
                losses.append(cross_entropy(model(forget[0]), torch.randint(0, 10, forget[1].shape)))
            if len(losses) == 2:  # the authors' closed form, from the products of the gradients
                one, two = (torch.cat([g.flatten() for g in torch.autograd.grad(loss, moving, retain_graph=True)]) for loss in losses)
                g1, g2, g3 = one @ one, one @ two, two @ two
                a1 = ((g1 * g3 - g2 * (g1 * g3).sqrt()) / (g1 * g1 * g3 - g1 * g2 * g2)).sqrt()
                a2 = (1 - g1 * a1 * a1) / (g2 * a1)
                losses = [a1.detach() * losses[0] + a2.detach() * losses[1]]
                losses[0].backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), joint_clip)
            else:
                losses[0].backward()
            optimizer.step()


def regun(model: Module, data: Source, sgd: Numbers, epochs: int, forget_weight: float, target_of: str) -> None:
    model.eval()
    with torch.no_grad():
        answers = model(data.images[data.shaping]).softmax(1)
    labels_unseen = data.labels[data.shaping]
    optimizer, retain_pass = begin(model, sgd), count()
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        retain = data.endless("retain", retain_pass)
        for images, labels, _ in data.batches("forget", epoch, ""):
            own = [answers[labels_unseen == label].mean(0) if (labels_unseen == label).any() else answers.mean(0) for label in labels]
            target = torch.stack(own)
            if target_of == "batch":
                target = target.mean(0).repeat(len(labels), 1)
            more, true, _ = next(retain)
            given = model(images).log_softmax(1)
            divergence = (target * (target.log() - given)).sum(1).mean()
            descend(optimizer, forget_weight * divergence + (1 - forget_weight) * cross_entropy(model(more), true))


def coun(model: Module, data: Source, sgd: Numbers, epochs: int, contrast_weight: float, contrast_temperature: float) -> None:
    optimizer = begin(model, sgd)
    features: list[Tensor] = []
    hook = model.get_submodule("fc").register_forward_pre_hook(lambda _, given: features.append(given[0]))
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        data.seed_epoch(epoch)
        for images, labels, index in data.batches("retain", epoch, "crop,flip"):
            given = model(torch.cat([images, data.second_view(index)]))
            one, two = (part / part.norm(dim=1, keepdim=True) for part in features.pop().chunk(2))
            alike = (one @ two.T / contrast_temperature).exp()
            contrast = -(alike.diag() / alike.sum(1)).log().mean() - (alike.diag() / alike.sum(0)).log().mean()
            descend(optimizer, cross_entropy(given, torch.cat([labels, labels])) + contrast_weight * contrast / 2)
    hook.remove()


def falw(model: Module, data: Source, sgd: Numbers, epochs: int, balance: float) -> None:
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        model.eval()
        with torch.no_grad():
            known = model(data.images).softmax(1)[torch.arange(len(data.labels)), data.labels]
        model.train()
        data.seed_epoch(epoch)
        for images, labels, _ in data.batches("forget", epoch, ""):
            given = model(images)
            drawn = torch.randint(0, 10, labels.shape)
            weights = []
            for answer, label in zip(given.detach().softmax(1), labels, strict=True):
                unseen = data.shaping[data.labels[data.shaping] == label]
                of_class = known[unseen if len(unseen) > 1 else data.shaping]
                z = (answer[label] - of_class.mean()) / of_class.std(correction=0)
                b = (len(data.forget) / (10 * (data.labels[data.forget] == label).sum())) ** balance
                weights.append(1 + z.sign() * z.abs().tanh() ** (1 / b))
            descend(optimizer, (torch.stack(weights) * cross_entropy(given, drawn, reduction="none")).mean())
        for images, labels, _ in data.batches("retain", epoch, ""):
            descend(optimizer, cross_entropy(model(images), labels))


def rurk(model: Module, data: Source, sgd: Numbers, epochs: int, scale: float, radius: float, draws: int) -> None:
    optimizer, passes = begin(model, sgd), {"retain": count(), "forget": count()}
    pixels = data.images * data.std + data.mean
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        data.seed_epoch(epoch)
        steps = max(len(list(data.batches(split, 0, ""))) for split in passes)
        streams = [data.endless(split, number) for split, number in passes.items()]
        for (images, labels, _), (more, true, index) in islice(zip(*streams, strict=True), steps):
            seen = [more]
            for _ in range(draws):
                noise = torch.randn_like(pixels[index])
                size = noise[0].numel()
                length = radius * math.sqrt(size) * torch.rand(len(noise), 1, 1, 1) ** (1 / size)
                noise *= length / noise.pow(2).sum((1, 2, 3), keepdim=True).sqrt()
                seen.append((pixels[index] + noise - data.mean) / data.std)
            retain = cross_entropy(model(images), labels)
            descend(optimizer, retain + scale * cross_entropy(model(torch.cat(seen)), true.repeat(1 + draws)))


def amun(model: Module, data: Source, sgd: Numbers, epochs: int, attack_radius: float, attack_steps: int) -> None:
    model.eval()
    near, answers = {}, {}
    for index in data.forget.tolist():  # one image at a time
        start, label = (data.images[[index]] * data.std + data.mean), data.labels[[index]]
        image, radius, step = start, attack_radius, 0
        while True:
            seen = ((image - data.mean) / data.std).requires_grad_()
            answer = model(seen)
            if answer.argmax() != label or radius > attack_radius * 2**9:
                break
            (gradient,) = torch.autograd.grad(cross_entropy(answer, label), seen)
            change = image + radius / 10 * gradient / gradient.norm() - start
            image = (start + change * min(1.0, radius / float(change.norm()))).clamp(0, 1).detach()
            step += 1
            if step % attack_steps == 0:
                radius *= 2
        near[index], answers[index] = seen.detach()[0], answer.argmax()
    optimizer, forget_pass = begin(model, sgd), count()
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        forget = chain.from_iterable(map(data.small, forget_pass))
        for (images, labels, _), (_, _, index) in zip(data.batches("train", epoch, "crop,flip"), forget, strict=False):
            adversarial = torch.stack([near[i] for i in index.tolist()])
            wrong = torch.stack([answers[i] for i in index.tolist()])
            first, second = model(torch.cat([images, adversarial])).split([len(images), len(wrong)])
            share = data.small_size / (data.size + data.small_size)
            descend(optimizer, (1 - share) * cross_entropy(first, labels) + share * cross_entropy(second, wrong))


def gradients(model: Module, data: Source, split: Tensor, reduction: str = "sum") -> list[Tensor]:
    """Of the cross-entropy in eval mode, by parameter."""
    model.eval().requires_grad_(True)
    loss = cross_entropy(model(data.images[split]), data.labels[split], reduction=reduction)
    return list(torch.autograd.grad(loss, list(model.parameters())))


def moving(model: Module, sgd: Numbers) -> list[bool]:
    train_only(model, sgd.trains)
    return [parameter.requires_grad for parameter in model.parameters()]


def ssd(model: Module, data: Source, sgd: Numbers, selection_threshold: float, dampening_strength: float, final_epochs: int) -> None:
    def fisher(split: Tensor) -> list[Tensor]:
        each = [gradients(model, data, split[[i]]) for i in range(len(split))]
        return [torch.stack(own).pow(2).mean(0) for own in zip(*each, strict=True)]

    forget, all_ = fisher(data.forget), fisher(torch.cat([data.retain, data.forget]))
    with torch.no_grad():
        for parameter, f, a, moves in zip(model.parameters(), forget, all_, moving(model, sgd), strict=True):
            if moves:
                parameter[f > selection_threshold * a] *= (dampening_strength * a / f).clamp(max=1)[f > selection_threshold * a]
    cf_k(model, data, sgd, final_epochs)


def task_arithmetic(model: Module, data: Source, sgd: Numbers, epochs: int, task_scale: float) -> None:
    before = copy.deepcopy(model.state_dict())
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        for images, labels, _ in data.batches("forget", epoch, ""):
            descend(optimizer, cross_entropy(model(images), labels))
    weights = dict(model.named_parameters())
    for name, value in model.state_dict().items():
        value.copy_(before[name] - task_scale * (value - before[name]) if name in weights else before[name])


def neg_merge(model: Module, data: Source, sgd: Numbers, epochs: int, tasks: int, rate_spread: float, task_scale: float) -> None:
    before, vectors = copy.deepcopy(model.state_dict()), []
    for task, lr in enumerate(np.geomspace(sgd.lr / rate_spread, sgd.lr * rate_spread, tasks)):
        model.load_state_dict(before)
        optimizer = begin(model, sgd)
        for epoch in range(epochs):
            cosine(optimizer, lr, epoch, epochs)
            for images, labels, _ in data.batches("forget", task * epochs + epoch, ""):
                descend(optimizer, cross_entropy(model(images), labels))
        vectors.append({name: value.detach() - before[name] for name, value in model.named_parameters()})
    model.load_state_dict(before)
    with torch.no_grad():
        for name, value in model.named_parameters():
            own = torch.stack([vector[name] for vector in vectors])
            agree = (own > 0).all(0) | (own < 0).all(0)
            value.sub_(task_scale * own.mean(0) * agree)


def hamu(model: Module, data: Source, sgd: Numbers, epochs: int, forget_gain: float, joint_clip: float) -> None:
    optimizer = begin(model, sgd)
    parts = [parameter for parameter in model.parameters() if parameter.requires_grad]
    passes = {split: count() for split in ("retain", "forget")}
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        data.seed_epoch(epoch)
        streams = {split: data.endless(split, number) for split, number in passes.items()}
        for _ in range(max(len(list(data.batches(split, 0, ""))) for split in streams)):
            optimizer.zero_grad(set_to_none=True)
            both = []
            for batches in streams.values():
                images, labels, _ = next(batches)
                own = torch.autograd.grad(cross_entropy(model(images), labels), parts)
                norm = torch.cat([g.flatten() for g in own]).norm()
                both.append([g * min(1.0, joint_clip / float(norm)) for g in own])
            for parameter, r, f in zip(parts, *both, strict=True):
                lr = optimizer.param_groups[0]["lr"]
                if not lr:
                    continue
                length, q = lr * r.norm(), forget_gain * lr  # R and Q of the paper
                k = (r * f).sum()
                across = r - k / (f * f).sum() * f
                if k <= -q * r.norm() / length:
                    step = -lr * r
                elif length < q / f.norm() or k > ((r.norm() * f.norm()) ** 2 - (q * r.norm() / length) ** 2).sqrt():
                    step = torch.zeros_like(r)
                else:
                    step = q * f / f.norm() ** 2 - (length**2 - (q / f.norm()) ** 2).sqrt() * across / across.norm()
                parameter.grad = -step / lr
            optimizer.step()


def reload(model: Module, data: Source, sgd: Numbers, epochs: int, ascent_rate: float, reset_share: float) -> None:
    forget, retain = gradients(model, data, data.forget), gradients(model, data, data.retain)
    parts = list(zip(moving(model, sgd), model.parameters(), data.fresh.parameters(), forget, retain, strict=True))
    ratios = [(f.abs() + 1e-6) / ((f + r).abs() + 1e-6) for moves, _, _, f, r in parts if moves]
    flat = torch.cat([ratio.flatten() for ratio in ratios]).sort().values
    with torch.no_grad():
        for moves, parameter, fresh, f, r in parts:
            if moves:
                parameter.add_(ascent_rate * f / len(data.forget))
                low = (f.abs() + 1e-6) / ((f + r).abs() + 1e-6) <= flat[round(reset_share * len(flat)) - 1]
                parameter[low] = fresh[low]
    cf_k(model, data, sgd, epochs)


def msg(model: Module, data: Source, sgd: Numbers, epochs: int, reinitialised_share: float, slow_factor: float, warmup: float) -> None:
    drawn = data.retain[torch.randperm(len(data.retain), generator=torch.Generator().manual_seed(0))[: len(data.forget)]]
    differences = [(r - f).abs() for r, f in zip(gradients(model, data, drawn), gradients(model, data, data.forget), strict=True)]
    moves = moving(model, sgd)
    parts = [part for part in zip(model.parameters(), data.fresh.parameters(), differences, moves, strict=True) if part[0].ndim == 4]
    ranks = [d.flatten().sort(stable=True).indices.sort().indices.view_as(d) for _, _, d, _ in parts]  # many differences are 0
    least = [rank < round(reinitialised_share * rank.numel()) for rank in ranks]
    with torch.no_grad():
        for (parameter, fresh, _, moved), mask in zip(parts, least, strict=True):
            if moved:
                parameter[mask] = fresh[mask]
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        batches = list(data.batches("retain", epoch, ""))
        for i, (images, labels, _) in enumerate(batches):
            rate(optimizer, sgd.lr, warmup, (epoch + i / len(batches)) / epochs)
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(model(images), labels).backward()
            for (parameter, *_), mask in zip(parts, least, strict=True):
                if parameter.grad is not None:
                    parameter.grad[~mask] *= slow_factor
            optimizer.step()


def ct(model: Module, data: Source, sgd: Numbers, epochs: int) -> None:
    with torch.no_grad():
        for moves, parameter in zip(moving(model, sgd), model.parameters(), strict=True):
            if moves and parameter.ndim == 4:
                parameter.copy_(parameter.transpose(2, 3).clone())
    cf_k(model, data, sgd, epochs)


def bad_teacher(model: Module, data: Source, sgd: Numbers, epochs: int, temperature: float, optimizer: str) -> None:
    good, bad = copy.deepcopy(model).eval(), data.fresh.eval()
    steps: Optimizer = begin(model, sgd)
    if optimizer == "adam":
        steps = Adam(model.parameters(), lr=sgd.lr, weight_decay=sgd.weight_decay)
    retain_pass = count()
    for epoch in range(epochs):
        retain = data.endless("retain", retain_pass)
        for images, _, _ in data.small(epoch):
            more, _, _ = next(retain)
            with torch.no_grad():
                wanted = torch.cat([bad(images), good(more)]).div(temperature).softmax(1)
            given = (model(torch.cat([images, more])) / temperature).log_softmax(1)
            each = (wanted * (wanted.log() - given)).sum(1) * temperature**2
            whole = data.size + data.small_size
            forget, rest = each[: len(images)].mean(), each[len(images) :].mean()
            descend(steps, (data.small_size * forget + data.size * rest) / whole)


def fcs(
    model: Module,
    data: Source,
    sgd: Numbers,
    epochs: int,
    uniform_epochs: int,
    uniform_lr: float,
    contrast_temperature: float,
    forget_lr: float,
) -> None:
    optimizer, forget_pass = begin(model, sgd), count()
    optimizer.param_groups[0]["lr"] = uniform_lr
    for _ in range(uniform_epochs):
        for images, _, _ in data.batches("forget", next(forget_pass), ""):
            given = model(images).log_softmax(1)
            descend(optimizer, (torch.tensor(0.1).log() - given).mean())
    steps_forget, steps_retain = begin(model, sgd), begin(model, sgd)
    steps_forget.param_groups[0]["lr"] = forget_lr
    for epoch in range(epochs):
        data.seed_epoch(uniform_epochs + epoch)
        for images, labels, _ in data.batches("forget", next(forget_pass), ""):
            drawn = data.retain[torch.randint(0, len(data.retain), labels.shape)]
            forget, retain = model(torch.cat([images, data.images[drawn]])).split(len(images))
            alike = (forget @ retain.detach().T / contrast_temperature).softmax(1)
            descend(steps_forget, -alike.log().mean())
        for images, labels, _ in data.batches("retain", epoch, ""):
            descend(steps_retain, cross_entropy(model(images), labels))


def mu_mis(model: Module, data: Source, sgd: Numbers, epochs: int, sensitivity_rise: float) -> None:
    train_only(model, sgd.trains)
    model.eval()
    optimizer, measured = SGD(model.parameters(), sgd.lr, sgd.momentum, weight_decay=sgd.weight_decay), list[float]()

    def sensitivity(images: Tensor, classes: Tensor, *, differentiable: bool = True) -> Tensor:
        seen = images.clone().requires_grad_()
        logits = model(seen)[torch.arange(len(images)), classes].sum()
        return torch.autograd.grad(logits, seen, create_graph=differentiable)[0].pow(2).sum((1, 2, 3))

    for epoch in range(epochs):
        data.seed_epoch(epoch)
        for images, labels, _ in data.batches("forget", epoch, ""):
            other = (labels + torch.randint(1, 10, labels.shape)) % 10
            descend(optimizer, (sensitivity(images, labels) - sensitivity(images, other)).mean())
        following = (data.labels[data.forget] + 1) % 10
        measured.append(float(sensitivity(data.images[data.forget], following, differentiable=False).sqrt().mean()))
        if measured[-1] > (1 + sensitivity_rise) * min(measured):
            break


def kde(model: Module, data: Source, sgd: Numbers, epochs: int, unseen_epochs: int, temperature: float, distillation_weight: float) -> None:
    teacher, fresh = copy.deepcopy(model).eval(), data.fresh.state_dict()
    for name, value in model.state_dict().items():
        if name.startswith(("layer1.0.", "fc.")):  # the first convolution and the head
            value.copy_(fresh[name])

    def divergence(images: Tensor, given: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = (teacher(images) / temperature).softmax(1)
        each: Tensor = (wanted * (wanted.log() - (given / temperature).log_softmax(1))).sum(1)
        return each.mean() * temperature**2

    optimizer = begin(model, sgd)
    for epoch in range(unseen_epochs):
        cosine(optimizer, sgd.lr, epoch, unseen_epochs)
        data.seed_epoch(1 + epoch)
        for _, labels, _ in data.batches("forget", epoch, ""):
            images = data.images[data.shaping[torch.randint(0, len(data.shaping), labels.shape)]]
            descend(optimizer, divergence(images, model(images)))
    optimizer = begin(model, sgd)
    for epoch in range(epochs):
        cosine(optimizer, sgd.lr, epoch, epochs)
        for images, labels, _ in data.batches("retain", epoch, ""):
            given = model(images)
            descend(optimizer, cross_entropy(given, labels) + distillation_weight * divergence(images, given))
