// The types as `require` has them.

import oomguard = require("oomguard");

const child = oomguard.fork("./worker.js", { limit: "400Mi" });
child.on("outOfMemory", (error: oomguard.OutOfMemoryError) => console.log(error.report, oomguard.EXIT_OUT_OF_MEMORY === error.code));
