"""The paper's own figures: Chen et al. 2022, Table 1 and section 5."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A line of the paper's Table 1: parameters sent, points of accuracy before and gained."""

    size: int
    lift: float
    before: float


#: (setting, method) -> line. All on CIFAR-10, deployed with 20% of the training data.
TABLE1 = {
    ("vgg_small", "ka"): Published(7413, 2.28, 76.40),
    ("vgg_small", "rm"): Published(7413, 0.02, 76.40),
    ("vgg_small", "lru"): Published(7878, 1.45, 76.40),
    ("vgg_medium", "ka"): Published(14672, 2.83, 78.14),
    ("vgg_medium", "rm"): Published(14681, 0.07, 78.14),
    ("vgg_medium", "lru"): Published(15638, 1.44, 78.14),
    ("mobilenet_v2", "ka"): Published(122632, 3.67, 84.25),
    ("mobilenet_v2", "rm"): Published(122660, 3.18, 84.25),
    ("mobilenet_v2", "lru"): Published(128734, 3.54, 84.25),
    ("resnet18", "ka"): Published(127939, 9.67, 77.49),
    ("resnet18", "rm"): Published(128378, 8.97, 77.49),
    ("resnet18", "lru"): Published(135670, 9.02, 77.49),
    ("resnet50", "ka"): Published(310656, 6.57, 77.77),
    ("resnet50", "rm"): Published(312837, 4.61, 77.77),
    ("resnet50", "lru"): Published(327185, 6.16, 77.77),
}

#: What the text says of each experiment. The figures print no numbers to hold ours against.
SAYS = {
    "table1": "KA ahead of RM and LRU on all models, RM hardly of use on the small ones.",
    "reduced": "no such experiment. This says that the methods run on these models, and no more.",
    "fig4a": "77.5% before. KA is best below 2% of the parameters, ML from 2% to 5%; RM and LRU "
    "need 2 to 3 times KA's size; FP at 20% does as well as KA at 1%; LRA is best once it has "
    "parameters enough.",
    "fig4a-reduced": "no such experiment. So short a training says little of where methods end.",
    "fig4b": "95.5% before. KA is best at the smallest sizes, closely followed by ML; RM and LRU "
    "need at least twice KA's size; LRA is best once it has parameters enough.",
    "fig5": "KA is further ahead of RM and LRU than on ResNet18.",
    "fig6": "the smaller the initial share, the further KA is ahead of RM and LRU.",
    "saturation": "+2.28 for KA with n = 3 on VGG-small (Table 1).",
}
