// Package near finds the name that somebody probably meant. It is a leaf: anything
// may import it.
package near

import "slices"

// Of returns the name that takes the fewest edits to become the wanted one, the
// first of them in order, "" if all take more than most.
func Of(names []string, wanted string, most int) string {
	best, least := "", most+1
	for _, name := range slices.Sorted(slices.Values(names)) {
		if d := Edits(name, wanted); d < least {
			best, least = name, d
		}
	}
	return best
}

// Edits is the Levenshtein distance in bytes.
func Edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
