"""Where a run's measures go beside its folder: CSV, TensorBoard, W&B, MLflow, and loggers of one's own."""

from headstart.run.loggers.base import Logger as Logger
from headstart.run.loggers.base import Named as Named
from headstart.run.loggers.base import Status as Status
from headstart.run.loggers.find import check_loggers as check_loggers
from headstart.run.loggers.find import open_loggers as open_loggers
