package policies

// MatchingAll has a loaded policy match every runner, so that a test meets the
// guards alone: no file could say so.
func MatchingAll(p *Policy) *Policy {
	p.match = nil
	return p
}
