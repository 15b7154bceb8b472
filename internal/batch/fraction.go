package batch

// window is how many records the dead letters' fraction is taken over.
const window = 10_000

// Fraction is how many of the last records were rejected into the dead letters.
type Fraction struct {
	Records int64 `json:"records,omitempty"`
	Bad     int64 `json:"bad,omitempty"`
}

// Then adds a batch behind the others. Of what was before, so much stays that both
// are window together, with the share of bad ones that it had; a batch as large as
// that stands for itself.
func (f Fraction) Then(g Fraction) Fraction {
	if keep := max(0, window-g.Records); f.Records > keep {
		f.Bad = (f.Bad*keep + f.Records/2) / f.Records
		f.Records = keep
	}
	return Fraction{f.Records + g.Records, f.Bad + g.Bad}
}
