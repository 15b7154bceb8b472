package batch

import "testing"

// TestFraction: a window of the last records, whatever the size of batches.
func TestFraction(t *testing.T) {
	t.Parallel()
	var f Fraction
	for range 100 { // 1 % bad
		f = f.Then(Fraction{Records: 300, Bad: 3})
	}
	if f.Records != window || f.Bad < 95 || f.Bad > 105 {
		t.Errorf("%+v", f)
	}
	if f = f.Then(Fraction{Records: 5000}); f.Records != window || f.Bad < 45 || f.Bad > 55 {
		t.Errorf("half of it without bad ones: %+v", f)
	}
	if f = f.Then(Fraction{Records: 40_000, Bad: 7}); f != (Fraction{40_000, 7}) {
		t.Errorf("a large batch stands for itself: %+v", f)
	}
	if f = f.Then(Fraction{Records: 10, Bad: 10}); f.Records != window || f.Bad != 12 {
		t.Errorf("a small one behind it: %+v", f)
	}
	if f = (Fraction{}).Then(Fraction{}); f != (Fraction{}) {
		t.Errorf("nothing: %+v", f)
	}
}
