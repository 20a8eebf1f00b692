import sys; sys.path.insert(0,'/tmp/work')
import dbg
from _tracked_cases import *
