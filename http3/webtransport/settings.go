package webtransport

import "github.com/anyquic/anyquic/http3"

// Settings by which the versions of the protocol say that they are spoken. All
// are announced, so that a peer of any age finds the one that it knows.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-02#section-8.2
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-07#section-8.2
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-14#section-9.2
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-9.2
const (
	settingEnable02      = 0x2b603742 // drafts 02 to 06: 1
	settingMaxSessions07 = 0xc671706a // drafts 07 to 12: sessions
	settingMaxSessions13 = 0x14e9cd29 // drafts 13 and 14: sessions
	settingEnabled15     = 0x2c7cf000 // from draft 15: 1

	// settingDatagram04 is that of HTTP datagrams before RFC 9297, which peers
	// of that time ask for.
	settingDatagram04 = 0xffd277
)

// Types that a stream starts with; the ID of its session follows.
const (
	streamUni  = 0x54
	streamBidi = 0x41
)

// The protocols of an extended CONNECT.
const (
	protocol   = "webtransport"    // up to draft 14
	protocol15 = "webtransport-h3" // from draft 15
)

// announced are the settings of this side. Without flow control by session,
// which would be announced as well, drafts from 13 on allow one session in a
// connection.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-5.1
func announced(cfg *Config) map[uint64]uint64 {
	return map[uint64]uint64{
		settingEnable02:      1,
		settingMaxSessions07: uint64(cfg.MaxSessions),
		settingMaxSessions13: 1,
		settingEnabled15:     1,
		settingDatagram04:    1,
	}
}

// A version is what two sides have in common.
type version struct {
	protocol    string
	maxSessions uint64
}

// negotiate returns what a server's settings allow this client, or a
// RequirementsError.
func negotiate(s http3.Settings, cfg *Config) (version, error) {
	v := version{protocol: protocol}
	own := uint64(cfg.MaxSessions)
	n07, has07 := s.Other[settingMaxSessions07]
	switch {
	case !s.Datagrams:
		return v, &RequirementsError{"HTTP datagrams at the peer"}
	case has07 && n07 > 0:
		v.maxSessions = min(n07, own)
	case s.Other[settingMaxSessions13] > 0, s.Other[settingEnabled15] == 1:
		v.maxSessions = 1
	case s.Other[settingEnable02] == 1:
		v.maxSessions = own
	default:
		return v, &RequirementsError{"WebTransport at the server"}
	}
	if s.Other[settingEnabled15] == 1 {
		v.protocol = protocol15
	}
	return v, nil
}
