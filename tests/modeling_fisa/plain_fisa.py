"""FISA's classification once more, from the state dict alone, as plain loops in NumPy's float64.

Written from the method's description, one proposal, one head and one pixel at a time. It shares no code with the
package and none with transformers.
"""

from fractions import Fraction
from math import ceil, floor

import numpy as np

from fisa import FisaConfig


class PlainFisa:
    """The image side of FISA for one photo at a time.

    Args:
        state_dict: of a `FisaModel`.
        config: what the weights do not tell.
    """

    def __init__(self, state_dict: dict, config: FisaConfig):
        self.weights = {name: tensor.double().numpy() for name, tensor in state_dict.items()}
        self.config = config
        self.num_layers = config.vision_config.num_hidden_layers
        self.num_heads = config.vision_config.num_attention_heads
        self.patch_size = config.vision_config.patch_size

    def mask_embeds(self, pixels, masks, class_embeds, *, photo_size=None, objectness=None) -> np.ndarray:
        """Embeddings `(num_proposals, projection_dim)` of `masks` `(num_proposals, height, width)`."""
        pixels, masks = np.asarray(pixels, np.float64), np.asarray(masks)
        class_embeds = None if class_embeds is None else np.asarray(class_embeds, np.float64)
        rows, columns = (side // self.patch_size for side in pixels.shape[1:])
        image = [self.norm(token, "vision_model.pre_layrnorm") for token in self.embed(pixels, rows, columns)]
        start = self.weights["vision_model.embeddings.class_embedding"]
        start = self.norm(start + self.weights["mask_encoder.mask_position.weight"][0], "vision_model.pre_layrnorm")
        patch_share = (Fraction(self.patch_size, pixels.shape[1]), Fraction(self.patch_size, pixels.shape[2]))
        height, width = photo_size if photo_size is not None else masks.shape[1:]
        masks = masks[:, :height, :width]
        segments = None
        if self.config.segment_attention_penalty:
            objectness = [1.0] * len(masks) if objectness is None else objectness
            segments = segments_of_patches(masks, objectness, rows, columns, patch_share)
        results = []
        for mask in masks:
            covered = self.covered_patches(mask > 0, rows, columns, patch_share)
            results.append(self.encode(image, start, [0, *(1 + patch for patch in covered)], class_embeds, segments))
        return np.array(results)

    def between_segments(self, token, segments) -> np.ndarray:
        """What is added to the attention scores of an image token, the CLS token being the first."""
        bias = np.zeros(1 + len(segments))
        for patch, segment in enumerate(segments, start=1):
            if token > 0 and segments[token - 1] != segment:
                bias[patch] = -self.config.segment_attention_penalty
        return bias

    def embed(self, pixels, rows, columns) -> list[np.ndarray]:
        kernel = self.weights["vision_model.embeddings.patch_embedding.weight"]
        position = self.weights["vision_model.embeddings.position_embedding.weight"]
        tokens = [self.weights["vision_model.embeddings.class_embedding"] + position[0]]
        size = self.patch_size
        for row in range(rows):
            for column in range(columns):
                patch = pixels[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
                token = np.array([np.sum(channel * patch) for channel in kernel])
                tokens.append(token + position[len(tokens)])
        return tokens

    def covered_patches(self, mask, rows, columns, patch_share) -> list[int]:
        coverage = []
        for row in range(rows):
            for column in range(columns):
                coverage.append(covered_fraction(mask, row, column, patch_share))
        threshold = self.config.mask_coverage_threshold
        reaching = [patch for patch, fraction in enumerate(coverage) if fraction > 0 and fraction >= threshold]
        if reaching:
            return reaching
        return [patch for patch, fraction in enumerate(coverage) if fraction > 0 and fraction == max(coverage)]

    def encode(self, image, mask_token, visible, class_embeds, segments=None) -> np.ndarray:
        for layer in range(self.num_layers):
            clip, added = f"vision_model.encoder.layers.{layer}", f"mask_encoder.layers.{layer}"
            if layer in self.config.seve_layers:
                guide = f"{added}.semantic_guidance"
                if self.config.seve_tokens in ("image", "both"):
                    image = [token + self.guidance(token, class_embeds, guide) for token in image]
                if self.config.seve_tokens in ("mask", "both"):
                    mask_token = mask_token + self.guidance(mask_token, class_embeds, guide)
            normed = [self.norm(token, f"{clip}.layer_norm1") for token in image]
            keys = [self.linear(token, f"{clip}.self_attn.k_proj") for token in normed]
            values = [self.linear(token, f"{clip}.self_attn.v_proj") for token in normed]

            query = self.linear(self.norm(mask_token, f"{clip}.layer_norm1"), f"{added}.mask_attention.query_proj")
            seen = attend(query, [keys[i] for i in visible], [values[i] for i in visible], self.num_heads)
            if layer in self.config.seve_layers and self.config.seve_tokens == "mask_keys":
                mask_token = mask_token + self.found_in_texts(query, class_embeds, clip, f"{added}.semantic_guidance")
            mask_token = mask_token + self.linear(seen, f"{clip}.self_attn.out_proj")
            queries = [self.linear(token, f"{clip}.self_attn.q_proj") for token in normed]
            biases = [0.0 if segments is None else self.between_segments(i, segments) for i in range(len(image))]
            seen = [attend(query, keys, values, self.num_heads, bias) for query, bias in zip(queries, biases)]
            image = [token + self.linear(s, f"{clip}.self_attn.out_proj") for token, s in zip(image, seen)]

            mask_token = mask_token + self.mlp(mask_token, clip)
            image = [token + self.mlp(token, clip) for token in image]
        return self.weights["visual_projection.weight"] @ self.norm(mask_token, "vision_model.post_layernorm")

    def guidance(self, token, class_embeds, name) -> np.ndarray:
        texts = [self.norm(text, f"{name}.text_norm") for text in class_embeds]
        query = self.linear(self.norm(token, f"{name}.token_norm"), f"{name}.q_proj")
        keys = [self.linear(text, f"{name}.k_proj") for text in texts]
        values = [self.linear(text, f"{name}.v_proj") for text in texts]
        return self.linear(attend(query, keys, values, self.config.seve_num_heads), f"{name}.out_proj")

    def found_in_texts(self, query, class_embeds, clip, name) -> np.ndarray:
        texts = [self.linear(self.norm(text, f"{name}.text_norm"), f"{name}.text_proj") for text in class_embeds]
        texts = [self.norm(text, f"{clip}.layer_norm1") for text in texts]
        keys = [self.linear(text, f"{clip}.self_attn.k_proj") for text in texts]
        values = [self.linear(text, f"{clip}.self_attn.v_proj") for text in texts]
        return self.linear(attend(query, keys, values, self.num_heads), f"{name}.out_proj")

    def mlp(self, token, clip_layer) -> np.ndarray:
        hidden = self.linear(self.norm(token, f"{clip_layer}.layer_norm2"), f"{clip_layer}.mlp.fc1")
        return self.linear(hidden / (1 + np.exp(-1.702 * hidden)), f"{clip_layer}.mlp.fc2")

    def linear(self, vector, name) -> np.ndarray:
        return self.weights[f"{name}.weight"] @ vector + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, vector, name) -> np.ndarray:
        centred = vector - vector.mean()
        unit = centred / np.sqrt(np.mean(centred**2) + self.config.vision_config.layer_norm_eps)
        return unit * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def covered_fraction(mask, row, column, patch_share) -> Fraction:
    """Share of one patch that the mask covers, exact; `patch_share`: a patch's sides in photos."""
    height, width = patch_share[0] * mask.shape[0], patch_share[1] * mask.shape[1]
    top, bottom, left, right = row * height, (row + 1) * height, column * width, (column + 1) * width
    covered = Fraction(0)
    for y in range(floor(top), ceil(bottom)):
        for x in range(floor(left), ceil(right)):
            if mask[y, x]:
                covered += (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
    return covered / (height * width)


def segments_of_patches(masks, objectness, rows, columns, patch_share) -> list[int]:
    """The likeliest proposal of each patch, −1 where none is likelier than one in a thousand."""
    segments = []
    for row in range(rows):
        for column in range(columns):
            claims = [
                chance * patch_mean(1 / (1 + np.exp(-np.float64(mask))), row, column, patch_share)
                for mask, chance in zip(masks, objectness)
            ]
            segments.append(int(np.argmax(claims)) if max(claims) > 1e-3 else -1)
    return segments


def patch_mean(values, row, column, patch_share) -> float:
    """Mean of one patch's values; `patch_share`: a patch's sides in photos."""
    height, width = patch_share[0] * values.shape[0], patch_share[1] * values.shape[1]
    top, bottom, left, right = row * height, (row + 1) * height, column * width, (column + 1) * width
    total = 0.0
    for y in range(floor(top), ceil(bottom)):
        for x in range(floor(left), ceil(right)):
            area = (min(bottom, y + 1) - max(top, y)) * (min(right, x + 1) - max(left, x))
            total += float(area) * values[y, x]
    return total / float(height * width)


def attend(query, keys, values, num_heads, bias=0.0) -> np.ndarray:
    """Attention of one query, one head at a time."""
    width = len(query) // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = np.array([query[part] @ key[part] for key in keys]) / np.sqrt(width) + bias
        weights = np.exp(scores - scores.max())
        weights = weights / weights.sum()
        heads.append(sum(weight * value[part] for weight, value in zip(weights, values)))
    return np.concatenate(heads)


def plain_class_logits(mask_embed, class_embeds, class_of_prompt, logit_scale) -> np.ndarray:
    """Temperature times cosine for one proposal, the best prompt of each class."""
    best = np.full(max(class_of_prompt) + 1, -np.inf)
    for text, index in zip(class_embeds, class_of_prompt):
        cosine = text @ mask_embed / np.linalg.norm(text) / np.linalg.norm(mask_embed)
        best[index] = max(best[index], np.exp(logit_scale) * cosine)
    return best


def plain_class_probabilities(logits, known_logits=None, known_class_ids=None, weight=0.0) -> np.ndarray:
    """p(class) of one proposal; where the generator knows a class, in geometric mean with the generator's."""
    probabilities = np.exp(logits - logits.max())
    probabilities = probabilities / probabilities.sum()
    if known_logits is not None:
        known = np.exp(known_logits - known_logits.max())
        known = known / known.sum()
        for index, known_index in enumerate(known_class_ids):
            if known_index >= 0:
                probabilities[index] = probabilities[index] ** (1 - weight) * known[known_index] ** weight
    return probabilities / probabilities.sum()


def plain_kind_weighting(probabilities, known_logits, *, label_is_thing, class_kinds, weight) -> np.ndarray:
    """p(class) of one proposal times the generator's p(kind of the class), which has labels of both kinds."""
    known = np.exp(known_logits - known_logits.max())
    known = known / known.sum()
    of_kind = {
        kind: sum(share for share, is_thing in zip(known, label_is_thing) if is_thing == bool(kind)) for kind in (0, 1)
    }
    weighed = [
        probability * (max(of_kind.values()) if kind == -1 else of_kind[kind]) ** weight
        for probability, kind in zip(probabilities, class_kinds)
    ]
    return np.array(weighed) / sum(weighed)
