"""The avatar as one HTML file to send: it stands, plays its clips and bends its joints in any browser, offline."""
