# Ways of a Perl program to meet the end of its memory: eat.pl WAY [CODE]. Perl cannot catch a refusal.
use strict;
use warnings;

sub work {
    my %table;
    $table{ $_ % 100 } = chr( $_ % 256 ) x ( 16 << 10 ) for 0 .. 3999;
    my $sum = 0;
    $sum += length($_) + ord( $table{$_} ) for keys %table;
    return $sum;
}

my ( $way, $code ) = @ARGV;
$| = 1;
print "pid $$\n";
my @held;
if ( $way eq 'strings' ) { push @held, chr( @held % 256 ) x ( 64 << 10 ) while 1 }
elsif ( $way eq 'small' ) { push @held, { name => scalar @held } while 1 }
elsif ( $way eq 'double' ) { my $text = 'x'; $text .= $text while 1 }
elsif ( $way eq 'eval' ) { eval { push @held, 'x' x ( 64 << 10 ) while 1 }; exit 77 }
elsif ( $way eq 'own' ) { print 'own ', work(), "\n"; exit $code }
exit 77;
