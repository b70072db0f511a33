# lme4 in a process of its own: the same requests and answers as worker.py.
# usage: Rscript benchmarks/worker.R DATA.csv FORMULA REML FACTOR,FACTOR
suppressPackageStartupMessages(library(lme4))
given <- commandArgs(TRUE)
reader <- if (requireNamespace("data.table", quietly = TRUE)) function(path) as.data.frame(data.table::fread(path)) else read.csv
frame <- reader(given[1])
formula <- as.formula(given[2])
reml <- given[3] == "REML"
for (name in strsplit(given[4], ",")[[1]]) frame[[name]] <- factor(frame[[name]])

resident <- function(field) {
  lines <- readLines("/proc/self/status")
  as.numeric(gsub("[^0-9]", "", lines[startsWith(lines, paste0(field, ":"))])) * 1024
}
fit <- function() suppressWarnings(suppressMessages(lmer(formula, frame, REML = reml)))
say <- function(text) { cat(text, "\n", sep = ""); flush(stdout()) }

invisible(fit_small <- suppressMessages(lmer(Reaction ~ Days + (Days | Subject), sleepstudy)))
say(sprintf('{"ready": true, "version": "%s", "frame": %.0f, "rows": %d}', packageVersion("lme4"), as.numeric(object.size(frame)), nrow(frame)))
requests <- file("stdin", "r")
while (length(line <- readLines(requests, n = 1))) {
  if (grepl('"memory"', line, fixed = TRUE)) {
    gc()
    cat("5", file = "/proc/self/clear_refs")
    before <- resident("VmRSS")
    invisible(fit())
    say(sprintf('{"peak": %.0f}', max(resident("VmHWM") - before, 0)))
  } else {
    repeats <- as.integer(sub('.*"repeat": *([0-9]+).*', "\\1", line))
    seconds <- numeric(repeats)
    for (i in seq_len(repeats)) {
      start <- Sys.time()
      done <- fit()
      seconds[i] <- as.numeric(difftime(Sys.time(), start, units = "secs"))
    }
    say(sprintf('{"seconds": [%s], "criterion": %.12g, "evaluations": %d}', paste(format(seconds, digits = 9), collapse = ", "),
                -2 * as.numeric(logLik(done)), as.integer(done@optinfo$feval)))
  }
}
