"""Which tasks of lmms-eval are the paper's image and video benchmarks, and how their numbers are read (Tables 2 to 5).

Not offered: M3GIA, for which lmms-eval has no task. ActivityNet-QA and MSVD-QA (Table 5) are open answers, marked by a
judge of one's own (`lab.evaluation.benchmarks.open_answers`); lmms-eval has no task for MSVD-QA.

Differs from the paper: its images were scored by VLMEvalKit, whose prompts and readings of an answer are others. The
splits of MMBench, EgoSchema and Perception-Test are not found; those with public answers are taken (dev, the subset of
500, val).
"""

from lab.evaluation.benchmarks.lmms_eval_tasks import DEFAULT_JUDGE, LmmsEvalTask, Metric, fills


def _accuracy(metric: Metric) -> dict[str, Metric]:
    return {"accuracy": metric}


_MVBENCH = (
    *("action_sequence", "moving_count", "action_prediction", "episodic_reasoning", "action_antonym", "action_count"),
    *("scene_transition", "object_shuffle", "object_existence", "fine_grained_pose", "unexpected_action"),
    *("moving_direction", "state_change", "object_interaction", "character_order", "action_localization"),
    *("counterfactual_inference", "fine_grained_action", "moving_attribute", "egocentric_navigation"),
)

VISION_TASKS: dict[str, LmmsEvalTask] = {
    "mmbench": LmmsEvalTask(
        tasks=("mmbench_en_dev_static",),  # reads the letter without a judge
        dataset="lmms-lab-encoder/MMBench",
        split="en, dev",
        metrics=_accuracy(Metric(key="gpt_eval_score", full=100.0)),
        cells=fills("table_2", "MMBench", "score"),
    ),
    "mmbench_cn": LmmsEvalTask(
        tasks=("mmbench_cn_dev",),
        dataset="lmms-lab-encoder/MMBench",
        split="cn, dev",
        metrics=_accuracy(Metric(key="gpt_eval_score", full=100.0)),
        judge=DEFAULT_JUDGE,
        cells=fills("table_2", "MMBench-CN", "score"),
    ),
    "seed_image": LmmsEvalTask(
        tasks=("seedbench",),
        dataset="lmms-lab-encoder/SEED-Bench",
        split="test; its videos are asked too, and not scored",
        metrics=_accuracy(Metric(key="seed_image", right=("pred", "answer"))),
        cells=fills("table_2", "SEED-IMG", "score"),
    ),
    "mme": LmmsEvalTask(
        tasks=("mme",),
        dataset="lmms-lab-encoder/MME",
        metrics={
            "perception": Metric(key="mme_perception_score", full=0.0, right=("score",)),
            "cognition": Metric(key="mme_cognition_score", full=0.0, right=("score",)),
        },
        combined="sum",  # VLMEvalKit's MME counts cognition too (its issue 113)
        main="points",
        together=2,
        cells=fills("table_2", "MME", "score", "points"),
    ),
    "mmmu_val": LmmsEvalTask(
        tasks=("mmmu_val",),
        dataset="lmms-lab-encoder/MMMU",
        split="validation",
        metrics=_accuracy(Metric(key="mmmu_acc")),
        cells=fills("table_2", "MMMU(val)", "score"),
    ),
    "hallusion_bench": LmmsEvalTask(
        tasks=("hallusion_bench_image",),
        dataset="lmms-lab-encoder/HallusionBench",
        split="image",
        metrics={
            "question_accuracy": Metric(key="aAcc", full=100.0),
            "figure_accuracy": Metric(key="fAcc", full=100.0),
            "question_pair_accuracy": Metric(key="qAcc", full=100.0),
        },
        # Which of them the paper prints is not found; VLMEvalKit reports their mean (its issues 113 and 133).
        combined="mean",
        judge="gpt-4",
        judge_variable="",
        cells=fills("table_2", "HallusionBench", "score"),
    ),
    "real_world_qa": LmmsEvalTask(
        tasks=("realworldqa",),
        dataset="lmms-lab-encoder/RealWorldQA",
        metrics=_accuracy(Metric(key="exact_match")),
        cells=fills("table_3", "RealWorldQA", "accuracy"),
    ),
    "mm_vet": LmmsEvalTask(
        tasks=("mmvet",),
        dataset="lmms-lab-encoder/MMVet",
        metrics=_accuracy(Metric(key="gpt_eval_score", full=100.0, right=("score",))),
        judge=DEFAULT_JUDGE,
        cells=fills("table_3", "MMVet", "accuracy"),
    ),
    "math_vista_mini": LmmsEvalTask(
        tasks=("mathvista_testmini_format",),
        dataset="AI4Math/MathVista",
        split="testmini",
        metrics=_accuracy(Metric(key="llm_as_judge_eval", full=100.0, right=("true_false",))),
        judge=DEFAULT_JUDGE,
        cells=fills("table_3", "MathVista-mini", "accuracy"),
    ),
    "text_vqa_val": LmmsEvalTask(
        tasks=("textvqa_val",),
        dataset="lmms-lab-encoder/textvqa",
        split="validation",
        metrics=_accuracy(Metric(key="exact_match")),
        cells=fills("table_3", "TextVQA(val)", "accuracy"),
    ),
    "chart_qa": LmmsEvalTask(
        tasks=("chartqa",),
        dataset="lmms-lab-encoder/ChartQA",
        metrics=_accuracy(Metric(key="relaxed_overall")),
        cells=fills("table_3", "ChartQA", "accuracy"),
    ),
    "ocr_bench": LmmsEvalTask(
        tasks=("ocrbench",),
        dataset="echo840/OCRBench",
        metrics=_accuracy(Metric(key="ocrbench_accuracy", right=("score",), of_items=True)),
        cells=fills("table_3", "OCRBench", "accuracy"),
    ),
    "mv_bench": LmmsEvalTask(
        tasks=tuple(f"mvbench_{name}" for name in _MVBENCH),
        dataset="OpenGVLab/MVBench@video",
        split="train, of its 20 tasks",
        metrics=_accuracy(Metric(key="mvbench_accuracy", full=100.0, right=("score",))),
        cells=fills("table_4", "MVBench", "top-1 accuracy"),
    ),
    "ego_schema": LmmsEvalTask(
        tasks=("egoschema_subset",),
        dataset="lmms-eval/egoschema",
        split="the subset of 500 whose answers are public",
        metrics=_accuracy(Metric(key="score", right=("pred", "ground_truth"))),
        cells=fills("table_4", "EgoSchema", "top-1 accuracy"),
    ),
    "video_mme": LmmsEvalTask(
        tasks=("videomme",),
        dataset="lmms-eval/Video-MME",
        split="test, without subtitles",
        metrics=_accuracy(
            Metric(key="videomme_perception_score", full=100.0, right=("score",), cluster="videoID"),
        ),
        cells=fills("table_4", "VideoMME (w/o subs)", "top-1 accuracy"),
    ),
    "perception_test": LmmsEvalTask(
        tasks=("perceptiontest_val_mc",),
        dataset="lmms-eval/PerceptionTest_Val",
        split="validation",
        metrics=_accuracy(Metric(key="accuracy", right=("correct",), cluster="video_name")),
        cells=fills("table_4", "Perception-Test", "top-1 accuracy"),
    ),
}
