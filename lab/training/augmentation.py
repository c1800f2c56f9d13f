"""What training does to the features of a sound at random, anew each time it is shown.

Section 3 of the paper does not tell of any; these are the usual ones of speech recognition.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Augmentation:
    """Changes of a sound's features; all of them off by default.

    `num_time_masks` stretches of up to `time_mask_frames` frames are set to zero in each two seconds (SpecAugment's
    time masking, Park et al. 2019); `noise` is the standard deviation of Gaussian noise, in standard deviations of a
    channel; `shift` starts the first window up to `downsample_rate` - 1 frames early.
    """

    num_time_masks: int = 0
    time_mask_frames: int = 0
    noise: float = 0.0
    shift: bool = False

    def __call__(
        self,
        frames: Float[np.ndarray, "frames features"],
        rng: np.random.Generator,
        *,
        mean: Float[np.ndarray, " features"],
        std: Float[np.ndarray, " features"],
        rate: int,
    ) -> Float[np.ndarray, "augmented features"]:
        """Augment one sound; masked and added frames are the channel means, which standardise to zero."""
        if self.noise:
            frames = frames + self.noise * std * rng.standard_normal(frames.shape, dtype=np.float32)
        if self.num_time_masks and self.time_mask_frames:
            frames = frames.copy()
            for _ in range(self.num_time_masks * max(1, len(frames) // 100)):
                length = int(rng.integers(0, self.time_mask_frames + 1))
                start = int(rng.integers(0, max(1, len(frames) - length)))
                frames[start : start + length] = mean
        if self.shift and rate > 1:
            early = int(rng.integers(0, rate))
            frames = np.concatenate([np.broadcast_to(mean, (early, len(mean))), frames])
        return np.ascontiguousarray(frames, dtype=np.float32)


UNCHANGED = Augmentation()
