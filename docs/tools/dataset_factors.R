# Factors of the data sets of installed R packages, as JSON on the standard output: what bayeslmm/dataset_factors.json is made from.
# usage: Rscript docs/tools/dataset_factors.R lme4 nlme MASS ... > factors.json; python -m docs.tools.dataset_factors factors.json
factors <- function(d) {
  columns <- list()
  for (name in names(d)) {
    v <- d[[name]]
    if (is.factor(v)) columns[[name]] <- list(levels = I(levels(v)), ordered = is.ordered(v), missing = sum(is.na(v)))
    if (is.character(v)) columns[[name]] <- list(text = I(unique(v[!is.na(v)])), missing = sum(is.na(v)))
  }
  columns
}
found <- list()
for (package in commandArgs(TRUE)) {
  for (item in tryCatch(data(package = package)$results[, "Item"], error = function(e) character())) {
    name <- sub(" .*", "", item)
    here <- new.env()
    d <- tryCatch({
      suppressWarnings(data(list = sub(".*\\((.*)\\)$", "\\1", item), package = package, envir = here))
      get(name, here)
    }, error = function(e) tryCatch(getExportedValue(package, name), error = function(e) NULL))
    if (is.data.frame(d) && length(columns <- factors(as.data.frame(d)))) {
      found[[paste(package, name, sep = "/")]] <- list(rows = nrow(d), columns = columns)
    }
  }
}
cat(jsonlite::toJSON(found, auto_unbox = TRUE))
