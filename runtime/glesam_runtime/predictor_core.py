"""Hold the engine, the image and the limits of a predictor, apart from the calls that people know.

`predictor.GleSamPredictor` adds segment_anything's and sam2's calls to this class.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime import chain, masks, predictor_recipe
from glesam_runtime.bundle import Bundle, builtin_bundle_path, open_bundle
from glesam_runtime.decoding import Decoded, Decoding
from glesam_runtime.embedding import ImageEmbedding
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.enhancing import Branch, Enhancing, Mode
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.manifest import STAGES, Manifest, StageName
from glesam_runtime.one_thread import OneThread, one_thread_at_a_time
from glesam_runtime.prompts import PromptBatch
from glesam_runtime.timestep_levels import asked_timestep, check_timestep

if TYPE_CHECKING:
    import os
    from typing import Self

    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.expected_work import ExpectedWork
    from glesam_runtime.image import Geometry, Preprocessed

_PROMPT_BATCH_CPU, _PROMPT_BATCH = 8, 64
"""Default maximum number of prompts per decoder call. On a CPU larger batches are no faster, and at
full size each prompt takes about 65 MB in float32 (docs/performance.md). The default on a GPU, 64,
is that of segment_anything."""


class PredictorCore(OneThread):
    """The engine and the image of a predictor.

    Pickling a predictor keeps how it was made: the path of its bundle, the backend and the options.
    Unpickling loads the bundle again, without the image. A deep copy shares the loaded graphs, if
    the engine allows it, and has the same image.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        backend: str = "auto",
        device: str | None = None,
        enhance: Mode | None = None,
        options: EngineOptions | None = None,
        prompt_batch: int | None = None,
        timestep: int | None = None,
        work: ExpectedWork | None = None,
    ) -> None:
        """Verify a bundle and load its graphs.

        Args:
            bundle: a bundle folder or an opened bundle; None is the built-in nano.
            backend: "onnxruntime", "openvino", "tensorrt" or "auto", which selects the
                fastest installed backend that stays within the bundle's accuracy limits.
            device: "cpu", "cuda" or "cuda:N"; None is the backend's default.
            enhance: True enhances every image. False runs plain SAM: the enhancer is neither loaded
                nor run. "auto" enhances an image if the bundle's gate estimates a gain. None is
                "auto" for a bundle with a gate, else True.
            options: how the engine is to run.
            prompt_batch: maximum number of prompts per decoder call; None is 8 on a CPU and 64 on
                other devices.
            timestep: the timestep that the enhancer runs, in a bundle with several; None is the
                bundle's default.
            work: the expected number of images and prompts, for which "auto" selects the engine of
                a small bundle; None is one image with one prompt.

        Raises:
            BundleError: the bundle is incomplete, altered or too new, or its gate belongs to other
                graphs.
            BackendError: the backend is not installed or cannot run the bundle.
            InputError: `prompt_batch` is less than 1, the bundle does not have the timestep, or
                `enhance` is "auto" and the bundle has no gate.
        """
        super().__init__()
        if prompt_batch is not None and prompt_batch < 1:
            raise InputError(f"prompt_batch {prompt_batch}: at least 1 is needed")
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self._folder = self.bundle.path.absolute()
        """The bundle's folder, whatever the process changes its working directory to."""
        self.enhancing = Enhancing.of(self.bundle, enhance)
        """How it is decided which images to enhance."""
        asked_timestep(self.bundle.manifest, timestep, self.enhancing.may_enhance)
        self.timestep = check_timestep(self.bundle.manifest, timestep)
        """The timestep that the enhancer runs; None in a bundle with one only."""
        self.timings: dict[str, float] = {}
        """Latest seconds of each step: load, preprocess, encoder, gate, enhancer, decoder, masks.
        A step that the latest image did not need is absent."""
        may = self.enhancing.may_enhance
        stages: tuple[StageName, ...] = STAGES if may else ("encoder", "decoder")
        with self._timed("load"):
            selected = select_engine(self.bundle, backend, device, stages, options, work)
        self.engine: Engine = selected.engine
        self.engine_reason = selected.reason
        """Why "auto" selected this engine; None if `backend` named it."""
        self._made_with = {
            "backend": backend,
            "device": device,
            "enhance": enhance,
            "options": options,
            "prompt_batch": prompt_batch,
            "timestep": timestep,
            "work": work,
        }
        self.prompt_batch = _max_prompts(self.bundle.manifest, self.engine.device, prompt_batch)
        """Maximum number of prompts per decoder call."""
        self._geometry: Geometry | None = None
        self._features: chain.Features | None = None
        self._branch: Branch | None = None
        self._images: tuple[ImageEmbedding, ...] = ()
        """The images of `set_image_batch`. They are kept on the host, because the next run of a
        compiled engine replaces what it left on its device."""

    @property
    def is_image_set(self) -> bool:
        """Return whether an image is set."""
        return self._features is not None

    @property
    def branch(self) -> Branch:
        """Return what was decided for the image.

        Raises:
            InputError: no image is set.
        """
        if self._branch is None:
            raise InputError("no image is set; call set_image first")
        return self._branch

    @property
    def enhanced(self) -> bool | None:
        """Return whether the enhancer ran on the image, or None if no image is set."""
        return self._branch.enhanced if self._branch else None

    @property
    def estimate(self) -> float | None:
        """Return what the gate estimated that the enhancer gains on the image.

        None if no image is set, or if `enhance` is not "auto".
        """
        return self._branch.estimate if self._branch else None

    @property
    def geometry(self) -> Geometry:
        """Return the sizes of the image before and after resizing.

        Raises:
            InputError: no image is set.
        """
        if self._geometry is None:
            raise InputError("no image is set; call set_image first")
        return self._geometry

    @one_thread_at_a_time
    def set_prepared(self, prepared: Preprocessed) -> None:
        """Encode and enhance an image that `image.preprocess` prepared in any thread."""
        manifest, seconds = self.bundle.manifest, self.timings
        with self._timed("encoder"):
            features = chain.encode(self.engine, manifest, prepared.tensor)
        for step in ("gate", "enhancer"):
            seconds.pop(step, None)
        branch = self._decide(features, prepared.geometry)
        if branch.enhanced:
            with self._timed("enhancer"):
                features = chain.enhance(self.engine, manifest, features, self.timestep)
        self.set_features(prepared.geometry, features, branch)

    @one_thread_at_a_time
    def reset_image(self) -> None:
        """Forget the image, or the images of a batch."""
        self._geometry, self._features, self._branch, self._images = None, None, None, ()

    @one_thread_at_a_time
    def get_embedding(self) -> ImageEmbedding:
        """Return the image's embedding as arrays on the host, for `set_embedding` or a file.

        Raises:
            InputError: no image is set.
        """
        features = {}
        for name, value in self._image_features().items():
            features[name] = np.array(self.engine.to_host(value), np.float32)
            features[name].flags.writeable = False
        branch = self.branch
        return ImageEmbedding(
            features, self.geometry, self.bundle.sha256, branch.enhanced, branch.estimate
        )

    @one_thread_at_a_time
    def set_embedding(self, embedding: ImageEmbedding) -> None:
        """Set an image by its embedding: neither the encoder nor the enhancer runs.

        Args:
            embedding: from `get_embedding` of any predictor of the same bundle, or from
                `load_embedding`. Whether the enhancer ran must agree with `enhance`; with "auto"
                both are accepted.

        Raises:
            InputError: the embedding is of another bundle or `enhance`, or damaged; the previous
                image stays set.
        """
        if not isinstance(embedding, ImageEmbedding):
            raise InputError(
                f"embedding: a {type(embedding).__name__}, but an ImageEmbedding is needed; "
                "get_embedding and load_embedding return one"
            )
        self._check_embedding(embedding)
        features = {name: np.array(value) for name, value in embedding.features.items()}
        self.set_features(embedding.geometry, features, embedding.branch)

    def share(self) -> Self:
        """Return another session of the same model, for another thread.

        It is a predictor on the same loaded graphs, without an image. In C++ it is
        `Predictor::share`.

        Raises:
            BackendError: the engine cannot be shared.
        """
        return self.with_engine(self.engine.share())

    def with_engine(self, engine: Engine) -> Self:
        """Return a copy of this predictor that runs on another engine and has no image."""
        other = copy(self)
        OneThread.__init__(other)
        other.engine, other.timings = engine, {}
        other.reset_image()
        return other

    @one_thread_at_a_time
    def decode(
        self, prompts: PromptBatch, multimask_output: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits [B, C, S/4, S/4] and predicted IoU [B, C] of B checked prompts.

        Raises:
            InputError: no image is set.
            BackendError: the engine failed, or the results are NaN.
        """
        return self._decode(prompts, self.geometry, multimask_output)

    @one_thread_at_a_time
    def decode_images(
        self, asked: Sequence[tuple[ImageEmbedding, PromptBatch]], multimask_output: bool = True
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Decode prompts on several images; the image that is set stays set.

        A bundle that was exported with `--image-index` decodes them together, others one image at a
        time. The results are the same up to the rounding of the engine.

        Args:
            asked: embeddings of `get_embedding`, and checked prompts on each.
            multimask_output: as in `decode`.

        Returns:
            For each element what `decode` returns.

        Raises:
            InputError: an embedding belongs to another bundle or `enhance`.
            BackendError: the engine failed, or the results are NaN.
        """
        for embedding, _ in asked:
            self._check_embedding(embedding)
        with self._timed("decoder"):
            return self._decoding.on_images(asked, multimask_output)

    def binarize(
        self, low_res: NDArray[np.float32], stability_offset: float | None = None
    ) -> masks.Masks:
        """Compute masks and stability at the image's size: [..., S/4, S/4] -> [..., H, W].

        Args:
            low_res: logits from `decode`.
            stability_offset: offset of the stability score in logits; None is the manifest's.

        Raises:
            InputError: no image is set.
        """
        rules = self.bundle.manifest.postprocessing
        return masks.binarize(low_res, self.geometry, rules, stability_offset)

    def __copy__(self) -> Self:
        """Return a predictor that uses the same engine and has the same image."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    @one_thread_at_a_time
    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return an independent predictor with the same image, on the same graphs if possible."""
        try:
            other = self.share()
        except BackendError:  # a compiled engine serves one predictor
            other = predictor_recipe.load(self._recipe(), type(self))
        if self.is_image_set:
            other.set_embedding(self.get_embedding())
            other._images = self._images
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to load this predictor again, in any process that finds the bundle."""
        return predictor_recipe.load, (self._recipe(), type(self))

    def _recipe(self) -> predictor_recipe.Recipe:
        # Another machine may have the package elsewhere.
        builtin = self._folder == builtin_bundle_path().absolute()
        path = None if builtin else self._folder
        return predictor_recipe.Recipe(path, self.bundle.sha256, self._made_with)

    def set_features(
        self, geometry: Geometry, features: chain.Features, branch: Branch | None = None
    ) -> None:
        """Set an image by what `chain.encode` or `chain.enhance` returned.

        The features are neither copied nor checked, and stay where the engine computed them.

        Args:
            geometry: the image's sizes.
            features: the features.
            branch: whether the enhancer ran; None is what `enhance` says, and not enhanced for
                "auto".
        """
        self._branch = branch or Branch(self.enhancing.mode is True)
        self._geometry, self._features, self._images = geometry, features, ()

    def _decide(self, features: chain.Features, geometry: Geometry) -> Branch:
        """Decide whether to enhance an image."""
        if self.enhancing.gate is None:
            return self.enhancing.decide(self.engine, features, geometry)
        with self._timed("gate"):
            return self.enhancing.decide(self.engine, features, geometry)

    def _check_embedding(self, embedding: ImageEmbedding) -> None:
        """Refuse an embedding that this predictor cannot use."""
        mode = self.enhancing.mode
        embedding.check(self.bundle, embedding.enhanced if mode == "auto" else mode)

    def _image_features(self) -> chain.Features:
        if self._features is None:
            raise InputError("no image is set; call set_image first")
        return self._features

    def _decode(self, prompts: PromptBatch, frame: Geometry, multimask: bool) -> Decoded:
        """Do what `decode` does, with prompts in pixels of `frame.original`."""
        features = self._image_features()
        with self._timed("decoder"):
            return self._decoding.on_image(features, prompts, frame, multimask)

    @property
    def _decoding(self) -> Decoding:
        return Decoding(self.engine, self.bundle.manifest, self.prompt_batch)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[step] = time.perf_counter() - start


def _max_prompts(manifest: Manifest, device: str, wanted: int | None) -> int:
    """Return the maximum number of prompts per decoder call; a compiled decoder may lower it."""
    if wanted is None:
        wanted = _PROMPT_BATCH_CPU if device == "cpu" else _PROMPT_BATCH
    decoder = manifest.stages["decoder"]
    axis = next(spec.shape[0] for spec in decoder.inputs if spec.name == "point_coords")
    profile = decoder.profile or {}
    return min(wanted, profile[axis].max) if axis in profile else wanted
