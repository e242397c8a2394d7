package main

import (
	"math"
	"slices"
)

// spread is the middle of some figures and how far they lie apart.
type spread struct{ median, low, high float64 }

// spreadOf takes the median and the quartiles, or the extremes of fewer than
// five figures. Quantiles are interpolated between neighbours.
func spreadOf(figures []float64) spread {
	if len(figures) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	f := slices.Clone(figures)
	slices.Sort(f)
	if len(f) < 5 {
		return spread{quantile(f, 0.5), f[0], f[len(f)-1]}
	}
	return spread{quantile(f, 0.5), quantile(f, 0.25), quantile(f, 0.75)}
}

// quantile of sorted figures.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// each takes one figure out of every sample.
func each(samples []sample, of func(sample) float64) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = of(s)
	}
	return out
}

// ratios divides neighbours of the same repetition: what slowed one down
// slowed the other down as well.
func ratios(a, b []float64) []float64 {
	n := min(len(a), len(b))
	out := make([]float64, 0, n)
	for i := range n {
		if b[i] != 0 {
			out = append(out, a[i]/b[i])
		}
	}
	return out
}
