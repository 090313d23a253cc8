package signature

// rsaSecurityBits is ossl_ifc_ffc_compute_security_bits in
// crypto/rsa/rsa_lib.c, with its fixed-point arithmetic.
func rsaSecurityBits(n int) int {
	canonical := map[int]int{2048: 112, 3072: 128, 4096: 152, 6144: 176, 7680: 192, 8192: 200, 15360: 256}
	if bits, ok := canonical[n]; ok {
		return bits
	}
	switch {
	case n >= 687737:
		return 1200
	case n < 8:
		return 0
	}
	limit := uint64(1200)
	if n <= 7680 {
		limit = 192
	} else if n <= 15360 {
		limit = 256
	}
	const log2, c1923, c4690 = 0x02c5c8, 0x07b126, 0x12c28f
	x := uint64(n) * log2
	lx := uint64(fixedLog(x))
	y := (scaled(c1923, fixedCubeRoot(scaled(scaled(x, lx), lx))) - c4690) / log2
	return int(min((y&0xffff+4)&^7, limit))
}

const fixedScale = 1 << 18

func scaled(a, b uint64) uint64 { return a * b / fixedScale }

func fixedLog(v uint64) uint32 {
	const logE = 0x05c551
	var r uint32
	for v >= 2*fixedScale {
		v >>= 1
		r += fixedScale
	}
	for i := uint32(fixedScale / 2); i != 0; i /= 2 {
		v = scaled(v, v)
		if v >= 2*fixedScale {
			v >>= 1
			r += i
		}
	}
	return uint32(uint64(r) * fixedScale / logE)
}

func fixedCubeRoot(x uint64) uint64 {
	const scale = 1 << 12
	var r uint64
	for s := 63; s >= 0; s -= 3 {
		r <<= 1
		b := 3*r*(r+1) + 1
		if x>>s >= b {
			x -= b << s
			r++
		}
	}
	return r * scale
}

// dsaSecurityBits is BN_security_bits in crypto/bn/bn_lib.c.
func dsaSecurityBits(l, n int) int {
	bits := 0
	for _, step := range [][2]int{{1024, 80}, {2048, 112}, {3072, 128}, {7680, 192}, {15360, 256}} {
		if l >= step[0] {
			bits = step[1]
		}
	}
	if n/2 < 80 {
		return 0
	}
	return min(bits, n/2)
}

// ecSecurityBits is ec_security_bits in crypto/ec/ec_ameth.c.
func ecSecurityBits(order int) int {
	for _, step := range [][2]int{{512, 256}, {384, 192}, {256, 128}, {224, 112}, {160, 80}} {
		if order >= step[0] {
			return step[1]
		}
	}
	return order / 2
}
