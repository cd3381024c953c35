"""unet_config of a tiny model of each family, as ComfyUI reads it off a checkpoint."""

HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "patch_size": [1, 2, 2], "out_channels": 16,
    "vec_in_dim": 768, "axes_dim": [16, 56, 56], "meanflow": False, "context_in_dim": 64,
    "hidden_size": 256, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1,
    "theta": 256, "qkv_bias": True, "byt5": False, "guidance_embed": True,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
HUNYUAN_15 = HUNYUAN | {
    "in_channels": 65, "patch_size": [1, 1, 1], "out_channels": 32, "vec_in_dim": None,
    "byt5": True, "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 32,
}  # fmt: skip
HUNYUAN_IMAGE = HUNYUAN | {
    "patch_size": [1, 1], "in_channels": 64, "out_channels": 64, "axes_dim": [64, 64],
    "vec_in_dim": None, "byt5": True, "guidance_embed": False,
}  # fmt: skip
FLUX = {
    "image_model": "flux", "axes_dim": [16, 56, 56], "num_heads": 2, "mlp_ratio": 2.0,
    "theta": 10000, "out_channels": 16, "qkv_bias": True, "txt_ids_dims": [], "in_channels": 16,
    "hidden_size": 256, "context_in_dim": 64, "patch_size": 2, "vec_in_dim": 768, "depth": 1,
    "depth_single_blocks": 2, "guidance_embed": True,
}  # fmt: skip
FLUX_2 = {
    "image_model": "flux2", "axes_dim": [32, 32, 32, 32], "num_heads": 2, "mlp_ratio": 2.0,
    "theta": 2000, "out_channels": 128, "global_modulation": True, "mlp_silu_act": True,
    "qkv_bias": False, "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0,
    "txt_ids_dims": [3], "patch_size": 1, "in_channels": 128, "hidden_size": 256,
    "context_in_dim": 64, "vec_in_dim": None, "depth": 1, "depth_single_blocks": 2,
    "guidance_embed": False,
}  # fmt: skip
CHROMA = {
    "image_model": "chroma", "axes_dim": [16, 56, 56], "num_heads": 2, "mlp_ratio": 2.0,
    "theta": 10000, "qkv_bias": True, "in_channels": 64, "out_channels": 64, "in_dim": 64,
    "out_dim": 256, "hidden_dim": 64, "n_layers": 1, "hidden_size": 256, "context_in_dim": 64,
    "patch_size": 2, "depth": 1, "depth_single_blocks": 2, "vec_in_dim": None, "txt_ids_dims": [],
}  # fmt: skip
CHROMA_RADIANCE = CHROMA | {
    "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 4,
    "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 4,
    "nerf_tile_size": 64, "nerf_final_head_type": "conv", "nerf_embedder_dtype": None,
    "use_x0": False, "use_sequential_txt_ids": False,
}  # fmt: skip
LTX = {
    "image_model": "ltxv", "num_layers": 2, "attention_head_dim": 64, "num_attention_heads": 2,
    "cross_attention_dim": 128, "caption_channels": 64, "in_channels": 128,
}  # fmt: skip
LTX_2 = LTX | {
    "image_model": "ltxav", "attention_head_dim": 128, "cross_attention_dim": 256,
    "audio_attention_head_dim": 64, "audio_num_attention_heads": 2,
    "audio_cross_attention_dim": 128, "audio_in_channels": 128,
    "connector_attention_head_dim": 64, "connector_num_attention_heads": 1,
    "connector_num_layers": 1,
}  # fmt: skip
COG = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 64,
    "time_embed_dim": 32, "num_layers": 2, "in_channels": 16, "patch_size": 2,
    "text_embed_dim": 64, "use_learned_positional_embeddings": False,
    "use_rotary_positional_embeddings": True,
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "num_attention_heads": 2,
    "joint_attention_dim": 64,
}  # fmt: skip
Z_IMAGE = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 64,
    "n_layers": 2, "qk_norm": True, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512], "rope_theta": 256.0, "ffn_dim_multiplier": 1.0,
    "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
Z_IMAGE_PIXEL = Z_IMAGE | {
    "image_model": "zimage_pixel", "patch_size": 4, "in_channels": 3, "decoder_in_channels": 48,
    "decoder_hidden_size": 32, "decoder_num_res_blocks": 1, "decoder_max_freqs": 4,
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 64,
    "n_layers": 2, "qk_norm": True, "n_heads": 4, "n_kv_heads": 2, "axes_dims": [16, 24, 24],
    "axes_lens": [300, 512, 512], "rope_theta": 10000.0, "ffn_dim_multiplier": 1.0,
}  # fmt: skip
MINIMAX = {
    "image_model": "minimax_h3", "num_layers": 2, "token_refiner_num_layers": 1,
    "hidden_size": 256, "latents_dim": 24, "audio_latents_dim": 32, "attention_head_dim": 128,
    "num_attention_heads": 2, "ffn_hidden_size": 128, "text_dim": 64, "timestep_input_dim": 32,
    "time_embed_hidden_size": 64, "time_embed_dim": 64, "rope_inv_freq_len": 16,
}  # fmt: skip
KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 128, "axes_dims": (16, 24, 24), "time_dim": 64,
    "ff_dim": 128, "visual_embed_dim": 132, "num_text_blocks": 1, "num_visual_blocks": 2,
    "in_text_dim": 64, "in_text_dim2": 32,
}  # fmt: skip
MOCHI = {
    "image_model": "mochi_preview", "depth": 2, "patch_size": 2, "num_heads": 2,
    "hidden_size_x": 256, "hidden_size_y": 128, "mlp_ratio_x": 48.0, "mlp_ratio_y": 1.0,
    "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True,
    "attn_drop": 0.0, "patch_embed_bias": True, "posenc_preserve_area": True,
    "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0,
    "use_t5": True, "t5_feat_dim": 64, "t5_token_length": 32, "rope_theta": 10000.0,
}  # fmt: skip
PREDICT_2 = {
    "image_model": "cosmos_predict2", "max_img_h": 64, "max_img_w": 64, "max_frames": 32,
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "model_channels": 256, "concat_padding_mask": True, "crossattn_emb_channels": 64,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "pos_emb_interpolation": "crop",
    "min_fps": 1, "max_fps": 30, "use_adaln_lora": True, "adaln_lora_dim": 32, "num_blocks": 2,
    "num_heads": 2, "extra_per_block_abs_pos_emb": False, "rope_enable_fps_modulation": False,
}  # fmt: skip
ANIMA = PREDICT_2 | {"image_model": "anima", "crossattn_emb_channels": 1024}
COSMOS = {
    "image_model": "cosmos", "max_img_h": 64, "max_img_w": 64, "max_frames": 32,
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "model_channels": 256, "block_config": "FA-CA-MLP", "concat_padding_mask": True,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": False, "pos_emb_interpolation": "crop",
    "block_x_format": "THWBD", "affline_emb_norm": True, "use_adaln_lora": True,
    "adaln_lora_dim": 32, "num_blocks": 2, "num_heads": 2, "crossattn_emb_channels": 64,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
HIDREAM = {
    "image_model": "hidream", "max_resolution": [64, 64], "in_channels": 16,
    "llama_layers": [0, 1], "num_attention_heads": 2, "num_routed_experts": 2,
    "num_activated_experts": 1, "num_layers": 1, "num_single_layers": 1, "out_channels": 16,
    "patch_size": 2, "text_emb_dim": 32, "caption_channels": [64, 48],
    "axes_dims_rope": (64, 32, 32),
}  # fmt: skip
MAGE_FLOW = {
    "image_model": "mage_flow", "in_channels": 128, "num_layers": 2, "num_attention_heads": 2,
    "joint_attention_dim": 64,
}  # fmt: skip
JOYIMAGE = {
    "image_model": "joyimage", "in_channels": 16, "hidden_size": 256, "patch_size": [1, 2, 2],
    "num_layers": 2, "num_attention_heads": 2, "text_dim": 64,
}  # fmt: skip
KREA = {
    "image_model": "krea2", "features": 256, "channels": 16, "patch": 2, "layers": 2, "heads": 2,
    "kvheads": 1, "txtlayers": 1, "txtdim": 128, "txtheads": 1, "txtkvheads": 1,
}  # fmt: skip
PIXELDIT = {
    "image_model": "pixeldit_t2i", "num_groups": 2, "hidden_size": 128, "pixel_hidden_size": 8,
    "pixel_attn_hidden_size": 64, "pixel_num_groups": 2, "patch_depth": 2, "pixel_depth": 1,
    "patch_size": 4, "txt_embed_dim": 64, "txt_max_length": 6,
}  # fmt: skip
PID = PIXELDIT | {
    "image_model": "pid", "lq_latent_channels": 16, "lq_hidden_dim": 16, "lq_num_res_blocks": 1,
}  # fmt: skip


def wan(model_type="t2v", **changes) -> dict:
    return {
        "image_model": "wan2.1", "model_type": model_type, "dim": 256, "out_dim": 16,
        "num_heads": 2, "ffn_dim": 64, "num_layers": 2, "patch_size": (1, 2, 2), "freq_dim": 256,
        "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6,
        "in_dim": 16, "text_dim": 64,
    } | changes  # fmt: skip
