// Package nearest finds the known word that is most similar to a misspelled one.
package nearest

import "strings"

// Word returns the known word with the smallest edit distance to name, ignoring case.
// ok is false if the distance is more than half of the length of that word.
func Word(name string, known []string) (best string, ok bool) {
	least := 0
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); best == "" || d < least {
			best, least = k, d
		}
	}
	return best, best != "" && least <= (len(best)+1)/2
}

// distance returns the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
