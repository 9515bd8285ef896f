"""Images and labels as tensors on the device: a split is an index tensor, a batch is an index slice, normalised when it is sliced.

N images, B batch, C classes, H x W pixels.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lethe.data.pixel_store import Rows
from lethe.recipes import held_out
from lethe.recipes.recipe import Augment, Recipe

PART = 1 << 19  # values that are normalised at a time: 2 MiB, which a CPU keeps near
USUAL = 32 * 32  # pixels of an image by which the sizes of forward passes are chosen
STREAM_SEEDS = {"retain": 1, "forget": 2, "train": 3, "validation": 4, "test": 5}


@dataclass(frozen=True)
class Batch:
    """images_BCHW float32, normalised; labels_B int64; index_B int64 into the data's images.

    features_BD: what the network's head takes for them, float32, where a loss asks for it (`of_features`)."""

    images_BCHW: Tensor
    labels_B: Tensor
    index_B: Tensor
    features_BD: Tensor | None = None

    def of(self, images_BCHW: Tensor, labels_B: Tensor, index_B: Tensor) -> "Batch":
        """Make a batch of other examples.

        Args:
            images_BCHW: inputs as the model takes them, float32 [B, ...].
            labels_B: int64 [B].
            index_B: their indices in the data, int64 [B].

        Returns:
            The batch.
        """
        return Batch(images_BCHW, labels_B, index_B)


@dataclass(frozen=True)
class Data:
    """All images, labels and splits of a run.

    Attributes:
        images_NCHW: uint8 [N, C, H, W], on the device or on the host.
        labels_N: int64 [N], class indices, on the device.
        splits: name -> int64 indices into the images, on the device; `train` is retain and forget.
        mean: float32 [1, C, 1, 1], of pixels scaled to [0, 1].
        std: the same.
        channels_last: the memory format of every batch.
        ahead: number of batches that a thread prepares in advance, for images on the host; the order stays the same.
        stored: reads images of a file that is larger than memory, the same as in `images_NCHW`; None: these are indexed.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    splits: Mapping[str, Tensor]
    mean: Tensor
    std: Tensor
    channels_last: bool = False
    ahead: int = 0
    stored: Rows | None = None

    def __post_init__(self) -> None:
        if self.stored is not None and self.stored.pixels.ctypes.data != self.images_NCHW.data_ptr():
            raise ValueError("stored reads other images than images_NCHW")

    @property
    def device(self) -> torch.device:
        """Where labels, indices and batches are."""
        return self.labels_N.device

    def normalised(self, index_B: Tensor) -> Tensor:
        """Inputs of a batch as the model takes them: float32 [B, C, H, W], on the device, for int64 indices [B]."""
        return self._normalise(self._pixels(index_B))

    def at_once(self, most: int) -> int:
        """Return how many images a forward pass takes, whose activations grow with their pixels.

        Args:
            most: images of 32x32 pixels, or smaller ones.

        Returns:
            So many that they have no more pixels than `most` of 32x32, on a GPU than 16 times as many; 1 to `most`.
        """
        if self.images_NCHW.ndim != 4:
            return most
        area = self.images_NCHW.shape[2] * self.images_NCHW.shape[3]
        return max(1, min(most, most * USUAL * (1 if self.device.type == "cpu" else 16) // max(area, 1)))

    @property
    def limits(self) -> tuple[float, float] | None:
        """The lowest and highest value of `pixels`; None: any value."""
        return 0.0, 1.0

    def pixels(self, index_B: Tensor) -> Tensor:
        """Images as float32 in [0, 1], [B, C, H, W], on the device, for int64 indices [B]."""
        return self._pixels(index_B).to(torch.float32) / 255

    def as_inputs(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalise what `pixels` returns, or images near it, for the model."""
        form = torch.channels_last if self.channels_last else torch.contiguous_format
        return ((pixels_BCHW - self.mean) / self.std).contiguous(memory_format=form)

    def augmented(self, index_B: Tensor, crop: int, flip: bool, resized: float | None = None) -> Tensor:
        """Inputs of a batch, cropped and flipped at random by torch's global generator.

        Args:
            index_B: int64 [B], which images.
            crop: pixels of zero padding before the crop.
            flip: whether to flip with probability 1/2.
            resized: in place of `crop`, as in `Augment`.

        Returns:
            float32 [B, C, H, W], as `normalised` returns them.
        """
        draws = _draws(Augment(crop, flip, None, resized), len(index_B), None, self.device)
        pixels = self._pixels(index_B)
        return self._normalise(_augmented(pixels, crop, draws) if resized is None else _resized_crops(pixels, draws))

    def for_selection(self, recipe: Recipe) -> "Data":
        """The data by which results of a recipe may be selected: without the images of validation that shape its results.

        Args:
            recipe: of the run.
        """
        splits = held_out.for_selection(recipe, self.splits, self.labels_N)
        return self if splits is self.splits else replace(self, splits=splits)

    def _pixels(self, index_B: Tensor) -> Tensor:
        """Images by index, moved to the device."""
        where = index_B.to(self.images_NCHW.device)
        pixels_BCHW = self.images_NCHW.index_select(0, where) if self.stored is None else torch.from_numpy(self.stored[where.numpy()])
        if pixels_BCHW.device == self.device:
            return pixels_BCHW
        return pixels_BCHW.pin_memory().to(self.device, non_blocking=True)

    def _normalise(self, pixels_BCHW: Tensor) -> Tensor:
        if not self.channels_last:
            return self._in_place(pixels_BCHW.to(dtype=torch.float32, memory_format=torch.contiguous_format))
        # the arithmetic channel by channel and then the format, a few images at a time: three times as fast on a CPU as the arithmetic on
        # three channels that alternate (docs/log.md), and without a second copy of the batch
        images = torch.empty(pixels_BCHW.shape, dtype=torch.float32, device=pixels_BCHW.device, memory_format=torch.channels_last)
        few = max(1, PART // pixels_BCHW.shape[1:].numel()) if pixels_BCHW.device.type == "cpu" else max(1, len(images))
        for some, pixels in zip(images.split(few), pixels_BCHW.split(few), strict=True):
            some.copy_(self._in_place(pixels.to(torch.float32)))
        return images

    def _in_place(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.div_(255).sub_(self.mean).div_(self.std)

    def batches(self, stream: str, batch_size: int, seed: int, number: int, augment: Augment | None = None) -> Iterator[Batch]:
        """Iterate over one shuffled pass of a split.

        A last batch of one image joins the batch before it. A split of one image gives a batch that holds it twice: BatchNorm can't
        train on one value a channel, and the mean loss is the same.

        Args:
            stream: name of the split.
            batch_size: images a batch.
            seed: of the run.
            number: of the pass, from 0. Order and augmentation follow from (seed, number, stream) alone, so a resumed run needs no
                generator state.
            augment: crop and flip, drawn for every image.

        Yields:
            Batches on the device.
        """
        return self._passes(stream, batch_size, [(seed, self.splits[stream])], number, augment)

    def drawn(
        self, stream: str, batch_size: int, seed: int, number: int, weights_N: Tensor, batches: int, augment: Augment | None = None
    ) -> Iterator[Batch]:
        """Iterate over batches of a split whose images are drawn with replacement.

        Args:
            stream: name of the split.
            batch_size: images a batch.
            seed: of the run.
            number: of the pass, from 0; the draw follows from (seed, number, stream) and the weights.
            weights_N: float [N], to which each image's probability is proportional; those of other splits do not count.
            batches: number of batches.
            augment: crop and flip, drawn for every image.

        Yields:
            Batches on the device, all of `batch_size` images.
        """
        draw = (weights_N[self.splits[stream]].double().cpu(), batches * batch_size)
        return self._passes(stream, batch_size, [(seed, self.splits[stream])], number, augment, draw)

    def _passes(
        self,
        stream: str,
        batch_size: int,
        each: Sequence[tuple[int, Tensor]],
        number: int,
        augment: Augment | None,
        draw: tuple[Tensor, int] | None = None,
    ) -> Iterator[Batch]:
        """Several passes of equal length in parallel, each of a seed and the indices of its split: a batch is theirs concatenated.

        `draw`: weights by which images are drawn with replacement, and how many; without it all are shuffled."""
        size = draw[1] if draw else len(each[0][1])
        generators = [torch.Generator().manual_seed(_mix(seed, number, STREAM_SEEDS[stream])) for seed, _ in each]

        def places(own: torch.Generator) -> Tensor:
            return torch.multinomial(draw[0], size, replacement=True, generator=own) if draw else torch.randperm(size, generator=own)

        order_SN = torch.stack([index_N[places(own).to(self.device)] for (_, index_N), own in zip(each, generators, strict=True)])
        draws_SN3 = torch.stack([_draws(augment, size, own, self.device) for own in generators]) if augment else None
        where_SN = order_SN.to(self.images_NCHW.device)

        def batch(cut: tuple[int, int]) -> Batch:
            start, stop = cut
            part = slice(start, stop) if stop - start > 1 else [start, start]
            index_B = order_SN[:, part].flatten()
            pixels = self._pixels(where_SN[:, part].flatten())
            if augment and draws_SN3 is not None:
                draws = draws_SN3[:, part].flatten(0, 1)
                pixels = _augmented(pixels, augment.crop, draws) if augment.resized is None else _resized_crops(pixels, draws)
            return Batch(self._normalise(pixels), self.labels_N[index_B], index_B)

        cuts = _cuts(size, batch_size)
        yield from _prefetched(batch, cuts, self.ahead) if self.ahead else map(batch, cuts)

    def length(self, stream: str, batch_size: int) -> int:
        """Return the number of batches in one pass, as `batches` cuts it.

        Args:
            stream: name of the split.
            batch_size: images per batch.

        Returns:
            The number; a last batch of a single image is joined to the one before it.
        """
        return len(_cuts(len(self.splits[stream]), batch_size))


class RawInputs(Data):
    """Inputs that a model takes unchanged: a user's own, or the activations of frozen layers in place of images.

    `images_NCHW` has any dtype and the shape [N, ...]."""

    @property
    def limits(self) -> tuple[float, float] | None:
        """None: inputs that are no images have no range."""
        return None

    def pixels(self, index_B: Tensor) -> Tensor:
        """Inputs [B, ...] for int64 indices [B], unchanged: there are no pixels to take."""
        return self.normalised(index_B)

    def as_inputs(self, pixels_BCHW: Tensor) -> Tensor:
        """The same [B, ...]: nothing is normalised."""
        return self._normalise(pixels_BCHW)

    def _normalise(self, pixels_BCHW: Tensor) -> Tensor:
        form = torch.channels_last if self.channels_last and pixels_BCHW.ndim == 4 else torch.contiguous_format
        return pixels_BCHW.contiguous(memory_format=form)


def _prefetched(batch: Callable[[tuple[int, int]], Batch], cuts: Iterable[tuple[int, int]], ahead: int) -> Iterator[Batch]:
    """`map` with the next results computed by a thread, which finishes what it began when the caller stops early."""
    with ThreadPoolExecutor(1, "prefetch") as thread:
        under_way: deque[Future[Batch]] = deque()
        for cut in cuts:
            under_way.append(thread.submit(batch, cut))
            if len(under_way) > ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _mix(*numbers: int) -> int:
    """Mix numbers into one 63-bit seed (the finaliser of splitmix64), so that neighbouring passes are independent."""
    mixed = 0
    for number in numbers:
        mixed = (mixed ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1


def _cuts(n: int, batch_size: int) -> list[tuple[int, int]]:
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()  # a last batch of one image would weigh it like a whole batch, and BatchNorm can't train on it
    return [(start, stop) for start, stop in zip(starts, [*starts[1:], n], strict=True)]


ASPECT = math.log(4 / 3)  # of a resized crop: the logarithm of its aspect ratio is between minus this and this


def _draws(augment: Augment, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw augmentation, int64 [N, 3]: row and column of the crop, and whether to flip.

    Of resized crops float32 [N, 5]: centre (row, column) and half size (height, width) of the part, where the image is [-1, 1]; and 1, or
    -1 to flip."""
    if augment.resized is not None:
        area, ratio, row, column = torch.rand(4, n, generator=generator)
        flip = 1 - 2 * torch.randint(0, 2, (n,), generator=generator) * int(augment.flip)
        area = augment.resized + (1 - augment.resized) * area
        aspect = torch.exp((2 * ratio - 1) * ASPECT)
        height, width = ((area * shape).sqrt().clamp(max=1.0) for shape in (1 / aspect, aspect))
        return torch.stack([(2 * row - 1) * (1 - height), (2 * column - 1) * (1 - width), height, width, flip], dim=1).to(device)
    corner = torch.randint(0, 2 * augment.crop + 1, (n, 2), generator=generator)
    flip = torch.randint(0, 2, (n, 1), generator=generator) * int(augment.flip)
    return torch.cat([corner, flip], dim=1).to(device)


def _augmented(pixels_BCHW: Tensor, crop: int, draws_B3: Tensor) -> Tensor:
    height, width = pixels_BCHW.shape[-2:]
    padded = torch.nn.functional.pad(pixels_BCHW, (crop, crop, crop, crop))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # all possible crops, as a view
    image = torch.arange(len(draws_B3), device=pixels_BCHW.device)
    cropped = windows[image, :, draws_B3[:, 0], draws_B3[:, 1]]
    return torch.where(draws_B3[:, 2, None, None, None] == 1, cropped.flip(-1), cropped)


def _resized_crops(pixels_BCHW: Tensor, draws_B5: Tensor) -> Tensor:
    """Enlarge a part of each image to the image's size, bilinearly: float32 [B, C, H, W], in the unit of the pixels."""
    row, column, height, width, flip = draws_B5.to(pixels_BCHW.device).T
    zero = torch.zeros_like(row)
    affine_B23 = torch.stack([width * flip, zero, column, zero, height, row], dim=1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(affine_B23, list(pixels_BCHW.shape), align_corners=False)
    return torch.nn.functional.grid_sample(pixels_BCHW.float(), grid, padding_mode="border", align_corners=False)
