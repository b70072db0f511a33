# The same questions asked of lme4, lmerTest, emmeans, pbkrtest and nlme, in processor seconds, as lines of a Markdown table.
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(pbkrtest); library(nlme)})
emm_options(lmerTest.limit = 1e6, pbkrtest.limit = 0)
rows <- function(n, per) {
  set.seed(n)
  g <- rep(seq_len(n / per), each = per)
  K <- max(g)
  x <- rnorm(n)
  arm <- c("a", "b", "c")[sample(K)[g] %% 3 + 1]
  y <- 1 + x + rnorm(K)[g] + 0.5 * rnorm(K)[g] * x + rnorm(n)
  data.frame(y, x, g = factor(g), arm = factor(arm), visit = rep(seq_len(per), n / per))
}
took <- function(call) {
  spent <- try(sum(system.time(suppressMessages(suppressWarnings(force(call))))[1:2]), silent = TRUE)
  if (inherits(spent, "try-error")) "failed" else if (spent < 0.1) sprintf("%.0f ms", 1e3 * spent) else sprintf("%.2f s", spent)
}
cat("\n## R on the same designs\n\n| package | question | 1,000 | 10,000 |\n|---|---|---|---|\n")
data <- lapply(c(1000, 10000), rows, per = 50)
slow <- lapply(c(1000, 10000), rows, per = 5)
fits <- lapply(data, function(d) lmer(y ~ x + arm + (x | g), d))
line <- function(package, question, ask) cat("|", package, "|", question, "|", ask(1), "|", ask(2), "|\n")
line("lme4", "A: fit", function(i) took(lme4::lmer(y ~ x + arm + (x | g), data[[i]])))
line("lmerTest", "A: summary (Satterthwaite)", function(i) took(summary(lmerTest::lmer(y ~ x + arm + (x | g), data[[i]]))))
line("lmerTest", "A: anova", function(i) took(anova(fits[[i]])))
line("emmeans", "A: pairs by Tukey", function(i) took(as.data.frame(pairs(emmeans(fits[[i]], "arm", lmer.df = "satterthwaite")))))
line("lme4", "A: ranef with variances", function(i) took(ranef(fits[[i]], condVar = TRUE)))
line("lme4", "A: predict", function(i) took(predict(fits[[i]])))
line("lme4", "A: simulate 20", function(i) took(simulate(fits[[i]], 20)))
line("lme4", "A: profile", function(i) if (i == 1) took(profile(fits[[i]])) else "")
line("lme4", "A: bootMer 50", function(i) if (i == 1) took(bootMer(fits[[i]], fixef, 50)) else "")
line("pbkrtest", "A: vcovAdj (Kenward-Roger)", function(i) if (i == 1) took(vcovAdj(fits[[i]])) else "")
line("nlme", "D: gls, us over 5 visits", function(i) {
  if (i == 2) return("")
  took(gls(y ~ x + arm * factor(visit), slow[[i]], correlation = corSymm(form = ~ visit | g), weights = varIdent(form = ~ 1 | visit)))
})
line("nlme", "E: gls, ar1 over 50 visits", function(i) took(gls(y ~ x + arm, data[[i]], correlation = corAR1(form = ~ visit | g))))
